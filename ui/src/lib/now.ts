/* The present time in seconds, as one shared ref that ticks while somebody looks at it. */
import { onScopeDispose, readonly, ref, type Ref } from 'vue'

const now = ref(Date.now() / 1000)
let users = 0
let timer: ReturnType<typeof setInterval> | undefined

export function useNow(): Readonly<Ref<number>> {
  users += 1
  if (users === 1) {
    now.value = Date.now() / 1000
    timer = setInterval(() => {
      now.value = Date.now() / 1000
    }, 1000)
  }
  onScopeDispose(() => {
    users -= 1
    if (users === 0) clearInterval(timer)
  })
  return readonly(now)
}
