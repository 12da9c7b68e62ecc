/* Query keys, and which of them an event makes stale. */
import type { HubEvent } from './types'

export const keys = {
  about: ['about'],
  nodes: ['nodes'],
  node: (name: string) => ['node', name],
  nodeEvents: (name: string) => ['node', name, 'events'],
  history: (name: string, sinceS: number) => ['history', name, sinceS],
  groups: ['groups'],
  joinTokens: ['join-tokens'],
  tasks: ['tasks'],
  task: (id: string) => ['task', id],
  packages: ['packages'],
  deployments: ['deployments'],
  deployment: (id: string) => ['deployment', id],
  sessions: ['sessions'],
  forwards: ['forwards'],
  forward: (id: string) => ['forward', id],
  links: ['links'],
  published: ['published'],
  users: ['users'],
  apiTokens: ['api-tokens'],
  audit: ['audit'],
} as const

type Key = readonly unknown[]

const stale: Record<string, readonly Key[]> = {
  'node.joined': [keys.nodes, keys.joinTokens, keys.groups],
  'node.online': [keys.nodes],
  'node.offline': [keys.nodes, keys.forwards],
  'node.changed': [keys.nodes, keys.groups],
  'node.removed': [keys.nodes, keys.groups, keys.links, keys.published],
  'node.revoked': [keys.nodes],
  'node.quarantined': [keys.nodes],
  'task.created': [keys.tasks],
  'task.finished': [keys.tasks],
  'deployment.created': [keys.deployments],
  'deployment.finished': [keys.deployments, keys.packages, keys.nodes],
  'package.added': [keys.packages],
  'package.removed': [keys.packages],
  'shell.opened': [keys.sessions],
  'shell.closed': [keys.sessions],
  'group.changed': [keys.groups, keys.nodes],
  'link.up': [keys.links, keys.forwards],
  'link.down': [keys.links, keys.forwards],
}

/* The keys whose data the event changed. */
export function staleKeys(event: Pick<HubEvent, 'kind' | 'node'>): Key[] {
  const found: Key[] = [...(stale[event.kind] ?? [])]
  if (event.node != null) {
    if (event.kind.startsWith('node.') || event.kind === 'deployment.finished') {
      found.push(keys.node(event.node))
    } else {
      found.push(keys.nodeEvents(event.node))
    }
  }
  return found
}
