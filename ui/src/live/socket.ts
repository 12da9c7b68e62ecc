/* The browser's live socket: one connection, reopened with back-off, shared by every page.
 *
 * It knows nothing of Vue. Subscriptions are counted, so that two pages may watch one node; after each
 * reconnection they are sent again. */
import { backoffMs } from './backoff'
import type { ClientMessage, FleetEntry, ServerMessage, Watcher } from './messages'
import type { HubEvent } from '@/api/types'

export type LiveState = 'stopped' | 'connecting' | 'ready' | 'waiting'

export interface Wire {
  send(text: string): void
  close(): void
  onmessage: ((event: { data: unknown }) => void) | null
  onclose: (() => void) | null
  onopen: (() => void) | null
}
export interface LiveOptions {
  ticket: () => Promise<string>
  open: () => Wire
  onState: (state: LiveState, retryAt: number | null) => void
  onEvent: (event: HubEvent) => void
  onFleet: (nodes: Record<string, FleetEntry>) => void
  random?: () => number
}

const MAX_WATCHED = 32

export class LiveSocket {
  private wire: Wire | null = null
  private state: LiveState = 'stopped'
  private failures = 0
  private attempt = 0
  private timer: ReturnType<typeof setTimeout> | undefined
  private readonly watchers = new Map<string, Set<Watcher>>()
  private fleetViewers = 0

  constructor(private readonly options: LiveOptions) {}

  start(): void {
    if (this.state === 'stopped') void this.connect()
  }

  stop(): void {
    this.attempt += 1
    clearTimeout(this.timer)
    this.drop()
    this.failures = 0
    this.enter('stopped')
  }

  /* Tries at once instead of at the end of the wait. */
  retryNow(): void {
    if (this.state !== 'waiting') return
    clearTimeout(this.timer)
    void this.connect()
  }

  /* Watches a node's samples until the returned function is called. */
  watch(node: string, watcher: Watcher): () => void {
    const known = this.watchers.get(node) ?? new Set()
    known.add(watcher)
    this.watchers.set(node, known)
    this.sendWatch()
    return () => {
      known.delete(watcher)
      if (known.size === 0 && this.watchers.get(node) === known) this.watchers.delete(node)
      this.sendWatch()
    }
  }

  /* Asks for the fleet's figures until the returned function is called. */
  watchFleet(): () => void {
    this.fleetViewers += 1
    if (this.fleetViewers === 1) this.send({ fleet: true })
    return () => {
      this.fleetViewers -= 1
      if (this.fleetViewers === 0) this.send({ fleet: false })
    }
  }

  private async connect(): Promise<void> {
    const attempt = (this.attempt += 1)
    this.enter('connecting')
    try {
      const ticket = await this.options.ticket()
      if (attempt !== this.attempt) return
      const wire = this.options.open()
      this.wire = wire
      wire.onopen = () => {
        wire.send(JSON.stringify({ ticket }))
      }
      wire.onmessage = ({ data }) => {
        if (typeof data === 'string') this.receive(JSON.parse(data) as ServerMessage)
      }
      wire.onclose = () => {
        if (attempt === this.attempt) this.failed()
      }
    } catch {
      if (attempt === this.attempt) this.failed()
    }
  }

  private receive(message: ServerMessage): void {
    switch (message.type) {
      case 'ready':
        this.failures = 0
        this.enter('ready')
        if (this.fleetViewers > 0) this.send({ fleet: true })
        if (this.watchers.size > 0) this.sendWatch()
        break
      case 'event':
        this.options.onEvent(message.event)
        break
      case 'fleet':
        this.options.onFleet(message.nodes)
        break
      case 'schema':
        for (const watcher of this.watchers.get(message.node) ?? []) watcher.schema(message.series)
        break
      case 'sample':
        for (const watcher of this.watchers.get(message.node) ?? []) {
          watcher.sample(message.at, message.values)
        }
        break
    }
  }

  private failed(): void {
    this.drop()
    const wait = backoffMs(this.failures, this.options.random)
    this.failures += 1
    this.enter('waiting', Date.now() + wait)
    this.timer = setTimeout(() => void this.connect(), wait)
  }

  private drop(): void {
    const wire = this.wire
    this.wire = null
    if (wire === null) return
    wire.onclose = wire.onmessage = wire.onopen = null
    wire.close()
  }

  private enter(state: LiveState, retryAt: number | null = null): void {
    this.state = state
    this.options.onState(state, retryAt)
  }

  private sendWatch(): void {
    this.send({ watch: [...this.watchers.keys()].slice(-MAX_WATCHED) })
  }

  private send(message: ClientMessage): void {
    if (this.state === 'ready') this.wire?.send(JSON.stringify(message))
  }
}
