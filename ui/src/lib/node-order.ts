/* The orders of the nodes table. Nodes that need attention come first by default. */
import type { Node } from '@/api/types'

export type SortKey = 'status' | 'name' | 'cpu' | 'memory' | 'system' | 'version' | 'rtt'

const urgency = ['quarantined', 'offline', 'online', 'never', 'revoked']
const names = new Intl.Collator('en', { numeric: true })

export function lastOf(values: readonly (number | null)[] | undefined): number | null {
  return values?.findLast((value) => value !== null) ?? null
}

const figures: Partial<Record<SortKey, (node: Node) => number>> = {
  status: (node) => urgency.indexOf(node.status),
  cpu: (node) => -(lastOf(node.spark.cpu) ?? -1),
  memory: (node) => -(lastOf(node.spark.memory) ?? -1),
  rtt: (node) => node.rtt_ms ?? Infinity,
}
const texts: Partial<Record<SortKey, (node: Node) => string>> = {
  system: (node) => node.facts.os_name ?? '',
  version: (node) => node.facts.agent_version ?? '',
}

export function nodeOrder(nodes: readonly Node[], key: SortKey, descending: boolean): Node[] {
  const figure = figures[key]
  const text = texts[key]
  const sign = descending ? -1 : 1
  return [...nodes].sort((a, b) => {
    let order = 0
    if (figure) {
      const [left, right] = [figure(a), figure(b)]
      order = left === right ? 0 : left - right
    } else if (text) order = names.compare(text(a), text(b))
    return sign * (order === 0 ? names.compare(a.name, b.name) : order)
  })
}
