/* The page's live connection as Vue sees it: state, events, the fleet's figures, watched nodes. */
import { onScopeDispose, reactive, readonly } from 'vue'
import { getTicket } from '@/api/access'
import type { HubEvent } from '@/api/types'
import type { FleetEntry, Watcher } from './messages'
import { LiveSocket, type LiveState, type Wire } from './socket'

const connection = reactive({
  state: 'stopped' as LiveState,
  retryAt: null as number | null,
  /* It was ready once: a first connection in progress is no disconnection. */
  lost: false,
})
const fleet = reactive(new Map<string, FleetEntry>())
const eventHandlers = new Set<(event: HubEvent) => void>()
const readyHandlers = new Set<() => void>()

function openSocket(): Wire {
  const url = new URL('/api/v1/live', location.href)
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:'
  return new WebSocket(url) as unknown as Wire
}

const socket = new LiveSocket({
  ticket: async () => (await getTicket('live')).ticket,
  open: openSocket,
  onState(state, retryAt) {
    const wasLost = connection.lost
    if (state === 'waiting') connection.lost = true
    if (state === 'ready' || state === 'stopped') connection.lost = false
    connection.state = state
    connection.retryAt = retryAt
    if (state === 'ready' && wasLost) for (const handler of readyHandlers) handler()
  },
  onEvent(event) {
    for (const handler of eventHandlers) handler(event)
  },
  onFleet(nodes) {
    for (const [name, entry] of Object.entries(nodes)) fleet.set(name, entry)
  },
})

export const liveConnection = readonly(connection)
export const fleetFigures = readonly(fleet) as ReadonlyMap<string, FleetEntry>

export function startLive(): void {
  socket.start()
}
export function stopLive(): void {
  socket.stop()
  fleet.clear()
}
export function retryLive(): void {
  socket.retryNow()
}

/* Calls the handler for every event until the current scope ends. */
export function useEvents(handler: (event: HubEvent) => void): void {
  eventHandlers.add(handler)
  onScopeDispose(() => eventHandlers.delete(handler))
}

/* Calls the handler when a lost connection is back: what was missed has to be fetched. */
export function useReconnected(handler: () => void): void {
  readyHandlers.add(handler)
  onScopeDispose(() => readyHandlers.delete(handler))
}

export function useFleet(): ReadonlyMap<string, FleetEntry> {
  onScopeDispose(socket.watchFleet())
  return fleetFigures
}

export function watchNode(node: string, watcher: Watcher): () => void {
  return socket.watch(node, watcher)
}
