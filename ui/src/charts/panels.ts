/* Which series of a node belong to which chart, by their names (cpu.core.3, net.eth0.rx …). */
import type { SeriesInfo } from '@/api/types'

export interface Line {
  index: number
  label: string
}
export interface Panel {
  id: string
  unit: string
  lines: Line[]
  /* A fixed top of the axis, where the unit has one. */
  max?: number
  /* The series that is the top of the axis. */
  ceiling?: number
}
export interface Space {
  mount: string
  used: number
  total: number | null
}

interface Rule {
  id: string
  match: RegExp
  label: (parts: RegExpExecArray) => string
}
const arrows: Record<string, string> = { rx: '↓', tx: '↑', read: 'read', write: 'write' }
const second = (parts: RegExpExecArray) => parts[1] ?? ''
const pair = (parts: RegExpExecArray) =>
  `${parts[1] ?? ''} ${arrows[parts[2] ?? ''] ?? parts[2] ?? ''}`

const rules: Rule[] = [
  { id: 'cores', match: /^cpu\.core\.(\d+)/, label: second },
  { id: 'cpu', match: /^cpu\.(?!idle)(\w+)$/, label: second },
  { id: 'load', match: /^load\.?(\d+)/, label: (parts) => `${second(parts)} min` },
  { id: 'memory', match: /^memory\.(used)$/, label: second },
  {
    id: 'memory',
    match: /^swap\.(used)$/,
    label: (parts) => `swap ${second(parts)}`,
  },
  { id: 'network', match: /^net\.(.+)\.(rx|tx)$/, label: pair },
  { id: 'io', match: /^(?:io|diskio|disk)\.(.+)\.(read|write)$/, label: pair },
  { id: 'pressure', match: /^(?:pressure|psi)\.(.+)$/, label: second },
  { id: 'temperature', match: /^(?:temp|temperature)s?\.(.+)$/, label: second },
]
const order = ['cpu', 'cores', 'load', 'memory', 'network', 'io', 'pressure', 'temperature']
const SPACE = /^disk\.(.+)\.(used|total|size|free)$/

export function buildPanels(series: readonly SeriesInfo[]): Panel[] {
  const panels = new Map<string, Panel>()
  series.forEach(({ name, unit }, index) => {
    for (const rule of rules) {
      const parts = rule.match.exec(name)
      if (!parts) continue
      const panel = panels.get(rule.id) ?? { id: rule.id, unit, lines: [] }
      if (unit === 'percent') panel.max = 100
      if (panel.unit === unit) panel.lines.push({ index, label: rule.label(parts) })
      panels.set(rule.id, panel)
      break
    }
  })
  const total = series.findIndex(({ name }) => name === 'memory.total')
  const memory = panels.get('memory')
  if (memory && total >= 0) memory.ceiling = total
  return [...panels.values()].sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id))
}

/* File systems with the indexes of what they use and hold. */
export function findSpaces(
  series: readonly SeriesInfo[],
): { mount: string; used: number; total: number | null }[] {
  const mounts = new Map<string, { mount: string; used: number; total: number | null }>()
  series.forEach(({ name, unit }, index) => {
    const parts = unit === 'bytes' ? SPACE.exec(name) : null
    if (!parts?.[1]) return
    const space = mounts.get(parts[1]) ?? { mount: parts[1], used: -1, total: null }
    if (parts[2] === 'used') space.used = index
    if (parts[2] === 'total' || parts[2] === 'size') space.total = index
    mounts.set(parts[1], space)
  })
  return [...mounts.values()].filter((space) => space.used >= 0)
}
