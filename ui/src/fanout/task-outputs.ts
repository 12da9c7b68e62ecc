/* A task's stream, followed from its beginning; a cut stream is read again after a pause. */
import { computed, onScopeDispose, ref, shallowRef, type Ref } from 'vue'
import { readLines } from '@/api/ndjson'
import { Problem } from '@/api/problems'
import type { Task } from '@/api/types'
import { taskStream } from '@/api/work'
import { finalStates, TaskOutputs, type OutputGroup, type TaskLine } from '@/lib/outputs'
import { backoffMs } from '@/live/backoff'

const REDRAW_MS = 120

export function useTaskOutputs(id: string, task: Ref<Task | undefined>, finished: () => void) {
  let outputs = new TaskOutputs()
  const groups = shallowRef<OutputGroup[]>([])
  const seen = shallowRef(new Map<string, string>())
  const done = ref(false)
  const error = shallowRef<unknown>(null)
  const controller = new AbortController()
  let redraw: ReturnType<typeof setTimeout> | undefined
  let pause: ReturnType<typeof setTimeout> | undefined
  let failures = 0

  function draw(): void {
    redraw = undefined
    for (const run of task.value?.runs ?? []) {
      const output = outputs.of(run.node)
      if (!finalStates.has(output.state) && output.size === 0) output.state = run.state
    }
    groups.value = outputs.groups()
    seen.value = new Map([...outputs.nodes].map(([node, { state }]) => [node, state]))
  }
  function take(line: unknown): void {
    outputs.take(line as TaskLine)
    redraw ??= setTimeout(draw, REDRAW_MS)
  }

  async function follow(): Promise<void> {
    outputs = new TaskOutputs()
    try {
      await readLines(taskStream(id), take, controller.signal)
      error.value = null
    } catch (reason) {
      if (controller.signal.aborted) return
      error.value = reason
      if (reason instanceof Problem && reason.status >= 400 && reason.status < 500) return
    }
    if (outputs.summary) {
      done.value = true
      finished()
    } else {
      pause = setTimeout(() => void follow(), backoffMs(failures))
      failures += 1
    }
    draw()
  }
  function retry(): void {
    clearTimeout(pause)
    void follow()
  }
  onScopeDispose(() => {
    controller.abort()
    clearTimeout(redraw)
    clearTimeout(pause)
  })
  void follow()

  const counts = computed(() => {
    const found: Record<string, number> = {}
    const runs = task.value?.runs?.map(({ node, state }) => [node, state] as const) ?? []
    for (const [node, state] of new Map([...runs, ...seen.value])) {
      void node
      found[state] = (found[state] ?? 0) + 1
    }
    return found
  })
  return { groups, counts, done, error, retry }
}
