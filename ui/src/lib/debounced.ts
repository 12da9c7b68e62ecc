/* A ref that follows another one after it has been still for a while. */
import { onScopeDispose, ref, watch, type Ref } from 'vue'

export function debouncedRef(
  source: Ref<string>,
  delayMs: number,
  settled?: (value: string) => void,
): Readonly<Ref<string>> {
  const result = ref(source.value)
  let timer: ReturnType<typeof setTimeout> | undefined
  watch(source, (value) => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      result.value = value
      settled?.(value)
    }, delayMs)
  })
  onScopeDispose(() => {
    clearTimeout(timer)
  })
  return result
}
