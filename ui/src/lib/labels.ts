/* Labels as text: `key=value` pairs separated by spaces or commas. */

const PAIR = /^([\w][\w.-]{0,62})=([^=\s,]{0,128})$/

/* Null when a part is not key=value. */
export function parseLabels(text: string): Record<string, string> | null {
  const labels: Record<string, string> = {}
  for (const part of text.split(/[\s,]+/).filter(Boolean)) {
    const match = PAIR.exec(part)
    if (!match?.[1]) return null
    labels[match[1]] = match[2] ?? ''
  }
  return labels
}

export function showLabels(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')
}
