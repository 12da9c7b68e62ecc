/* A node's samples in columns, as uPlot wants them: history first, then what arrives live.
 *
 * Bounded to one hour. A pause longer than 2.5 expected intervals becomes one row of nulls, so that a
 * gap is drawn as a gap. Plain arrays on purpose: nothing here is reactive. */
import type { History, SeriesInfo } from '@/api/types'

export type Column = (number | null)[]

export const KEEP_S = 3600
/* How far apart the hub's stored points are. */
const HISTORY_STEP_S = 10

export class Samples {
  series: SeriesInfo[] = []
  at: number[] = []
  columns: Column[] = []
  private intervalS = HISTORY_STEP_S
  private lastIntervalS = HISTORY_STEP_S

  /* Takes the schema of the live samples; keeps the columns of series that remain. */
  setSchema(series: SeriesInfo[]): void {
    const known = new Map(this.series.map(({ name }, index) => [name, this.columns[index]]))
    this.columns = series.map(
      ({ name }) => known.get(name) ?? new Array<number | null>(this.at.length).fill(null),
    )
    this.series = series
    this.intervalS = 1
  }

  /* Forgets everything, for a pause that only the hub's history can fill. */
  clear(): void {
    this.at = []
    this.columns = this.series.map(() => [])
  }

  /* Puts history before the samples that are here already. */
  prepend(history: History): void {
    const live = { series: this.series, at: this.at, columns: this.columns }
    const before = live.at[0] ?? Infinity
    this.series = history.series
    this.at = []
    this.columns = history.series.map(() => [])
    history.at.forEach((at, row) => {
      if (at < before)
        this.append(
          at,
          history.values.map((column) => column[row] ?? null),
          HISTORY_STEP_S,
        )
    })
    if (live.series.length > 0) {
      this.setSchema(live.series)
      live.at.forEach((at, row) => {
        this.append(
          at,
          live.columns.map((column) => column[row] ?? null),
          1,
        )
      })
    }
  }

  push(at: number, values: Column): void {
    this.append(at, values, this.intervalS)
    const first = this.at[0]
    if (first !== undefined && at - first > KEEP_S * 1.1) this.trim(at - KEEP_S)
  }

  /* The x values and the chosen columns since a time. */
  window(since: number, indexes: readonly number[]): [number[], ...Column[]] {
    const start = lowerBound(this.at, since)
    return [
      this.at.slice(start),
      ...indexes.map((index) => (this.columns[index] ?? []).slice(start)),
    ]
  }

  latest(index: number): number | null {
    return this.columns[index]?.findLast((value) => value !== null) ?? null
  }

  private append(at: number, values: Column, intervalS: number): void {
    const last = this.at.at(-1)
    if (last !== undefined) {
      if (at <= last) return
      // The first live sample may follow the last stored one by the longer of both steps.
      const stepS = Math.max(intervalS, this.lastIntervalS)
      if (at - last > stepS * 2.5) this.row(last + (at - last) / 2, [])
    }
    this.lastIntervalS = intervalS
    this.row(at, values)
  }

  private row(at: number, values: Column): void {
    this.at.push(at)
    this.columns.forEach((column, index) => column.push(values[index] ?? null))
  }

  private trim(before: number): void {
    const count = lowerBound(this.at, before)
    this.at.splice(0, count)
    for (const column of this.columns) column.splice(0, count)
  }
}

/* The index of the first value that is not below the bound. */
export function lowerBound(sorted: readonly number[], bound: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((sorted[middle] ?? 0) < bound) low = middle + 1
    else high = middle
  }
  return low
}
