/* What a target expression matches, asked from the hub a moment after the last keystroke. */
import { onScopeDispose, ref, watch, type Ref } from 'vue'
import { previewTarget } from '@/api/nodes'
import { Problem } from '@/api/problems'
import type { Node } from '@/api/types'
import { problemText } from './problem-text'

const DELAY_MS = 200

export function useTargetPreview(target: Ref<string>) {
  const matches = ref<Node[]>([])
  const total = ref(0)
  const error = ref('')
  const column = ref<number | null>(null)
  const pending = ref(false)
  let timer: ReturnType<typeof setTimeout> | undefined
  let running: AbortController | null = null

  async function ask(text: string): Promise<void> {
    const controller = (running = new AbortController())
    try {
      const page = await previewTarget(text, 8, controller.signal)
      if (controller.signal.aborted) return
      matches.value = page.items
      total.value = page.total
      error.value = ''
      column.value = null
    } catch (reason) {
      if (controller.signal.aborted) return
      matches.value = []
      total.value = 0
      error.value = problemText(reason)
      column.value = reason instanceof Problem ? (reason.column ?? null) : null
    }
    pending.value = false
  }

  function forget(): void {
    clearTimeout(timer)
    running?.abort()
  }
  watch(
    target,
    (text) => {
      forget()
      pending.value = text.trim() !== ''
      if (pending.value) timer = setTimeout(() => void ask(text), DELAY_MS)
      else {
        matches.value = []
        total.value = 0
        error.value = ''
        column.value = null
      }
    },
    { immediate: true },
  )
  onScopeDispose(forget)
  return { matches, total, error, column, pending }
}
