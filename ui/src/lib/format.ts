/* Numbers, sizes and times as people read them. Sizes are binary (1 KiB = 1024 bytes). */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

export function formatBytes(bytes: number | null | undefined): string {
  if (bytes == null || !Number.isFinite(bytes)) return '–'
  let value = Math.abs(bytes)
  let unit = 0
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1
  return `${bytes < 0 ? '-' : ''}${value.toFixed(digits)} ${UNITS[unit] ?? ''}`
}

export function formatPercent(value: number | null | undefined): string {
  if (value == null) return '–'
  return `${value === 0 ? '0' : value.toFixed(value < 9.95 ? 1 : 0)}%`
}

export function formatRtt(milliseconds: number | null | undefined): string {
  if (milliseconds == null) return '–'
  return `${milliseconds.toFixed(milliseconds < 9.95 ? 1 : 0)} ms`
}

/* A value of a metric in its unit, short enough for an axis. */
export function formatMetric(value: number | null | undefined, unit: string): string {
  if (value == null) return '–'
  switch (unit) {
    case 'percent':
      return formatPercent(value)
    case 'bytes':
      return formatBytes(value)
    case 'bytes/s':
      return `${formatBytes(value)}/s`
    case 'celsius':
      return `${value.toFixed(0)} °C`
    default:
      return Math.abs(value) >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(2)
  }
}

/* How long, in the two largest units: 3d 4h, 12m 5s, 850 ms. */
export function formatDuration(seconds: number): string {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`
  const whole = Math.round(seconds)
  const parts: [number, string][] = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor((whole % 86400) / 3600), 'h'],
    [Math.floor((whole % 3600) / 60), 'm'],
    [whole % 60, 's'],
  ]
  const first = parts.findIndex(([count]) => count > 0)
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count}${unit}`)
    .join(' ')
}

const STEPS: [number, Intl.RelativeTimeFormatUnit][] = [
  [86400, 'day'],
  [3600, 'hour'],
  [60, 'minute'],
  [1, 'second'],
]

/* “3 minutes ago”, “in 2 hours” in the given language. */
export function formatAgo(at: number, now: number, locale: string): string {
  const delta = at - now
  const format = new Intl.RelativeTimeFormat(locale, { numeric: 'auto', style: 'short' })
  for (const [size, unit] of STEPS) {
    if (Math.abs(delta) >= size) return format.format(Math.trunc(delta / size), unit)
  }
  return format.format(0, 'second')
}

export function formatTime(at: number, locale: string): string {
  return new Date(at * 1000).toLocaleString(locale, {
    dateStyle: 'medium',
    timeStyle: 'medium',
    hour12: false,
  })
}
