/* What travels on /api/v1/live, both ways (docs/design/api.md). */
import type { HubEvent, SeriesInfo } from '@/api/types'

export interface FleetEntry {
  status: string
  cpu: number | null
  memory: number | null
  rtt_ms: number | null
}
export type ServerMessage =
  | { type: 'ready' }
  | { type: 'event'; event: HubEvent }
  | { type: 'schema'; node: string; series: SeriesInfo[] }
  | { type: 'sample'; node: string; at: number; values: (number | null)[] }
  | { type: 'fleet'; nodes: Record<string, FleetEntry> }

export type ClientMessage = { ticket: string } | { watch: string[] } | { fleet: boolean }

/* A node's samples, as a watcher receives them. */
export interface Watcher {
  schema(series: SeriesInfo[]): void
  sample(at: number, values: (number | null)[]): void
}
