/* A deployment's nodes: as stored, then as its stream changes them. */
import { computed, onScopeDispose, ref, shallowRef, triggerRef, watch, type Ref } from 'vue'
import { readLines } from '@/api/ndjson'
import { Problem } from '@/api/problems'
import type { Deployment, DeploymentNode } from '@/api/types'
import { deploymentStream } from '@/api/work'
import { backoffMs } from '@/live/backoff'

type StreamLine = ({ type: 'node' } & DeploymentNode) | { type: 'summary'; state: string }

const rank = [
  'failed',
  'lost',
  'installing',
  'transferring',
  'queued',
  'succeeded',
  'skipped',
  'cancelled',
]
const final = new Set(['failed', 'lost', 'succeeded', 'skipped', 'cancelled'])

/* How far a node is: the transfer is the larger part of the work. */
export function nodePercent(item: DeploymentNode): number {
  if (final.has(item.state)) return 100
  if (item.state === 'installing') return 85
  return item.total_bytes > 0 ? (item.done_bytes / item.total_bytes) * 80 : 0
}

export function useDeploymentNodes(
  id: string,
  deployment: Ref<Deployment | undefined>,
  finished: () => void,
) {
  const known = shallowRef(new Map<string, DeploymentNode>())
  const done = ref(false)
  const controller = new AbortController()
  let pause: ReturnType<typeof setTimeout> | undefined
  let failures = 0

  watch(
    deployment,
    (value) => {
      for (const item of value?.nodes ?? []) {
        if (!known.value.has(item.node) || done.value) known.value.set(item.node, item)
      }
      triggerRef(known)
    },
    { immediate: true },
  )

  function take(value: unknown): void {
    const line = value as StreamLine
    if (line.type === 'summary') done.value = true
    else known.value.set(line.node, line)
    triggerRef(known)
  }
  async function follow(): Promise<void> {
    try {
      await readLines(deploymentStream(id), take, controller.signal)
    } catch (reason) {
      if (controller.signal.aborted) return
      if (reason instanceof Problem && reason.status >= 400 && reason.status < 500) return
    }
    if (done.value) {
      finished()
      return
    }
    pause = setTimeout(() => void follow(), backoffMs(failures))
    failures += 1
  }
  onScopeDispose(() => {
    controller.abort()
    clearTimeout(pause)
  })
  void follow()

  const nodes = computed(() =>
    [...known.value.values()].sort(
      (a, b) => rank.indexOf(a.state) - rank.indexOf(b.state) || a.node.localeCompare(b.node),
    ),
  )
  const counts = computed(() => {
    const found: Record<string, number> = {}
    for (const { state } of nodes.value) found[state] = (found[state] ?? 0) + 1
    return found
  })
  const percent = computed(() =>
    nodes.value.length === 0
      ? 0
      : nodes.value.reduce((sum, item) => sum + nodePercent(item), 0) / nodes.value.length,
  )
  return { nodes, counts, percent, done }
}
