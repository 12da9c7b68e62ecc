/* SVG paths of a sparkline from 0 to 100 %: the line and the area below it, broken at gaps. */
export function sparkPath(
  values: readonly (number | null)[],
  width: number,
  height: number,
): { line: string; area: string } {
  const step = width / Math.max(1, values.length - 1)
  let line = ''
  let area = ''
  let start: number | null = null
  let x = 0
  values.forEach((value, index) => {
    const next = index * step
    if (value === null) {
      if (start !== null) area += `L${fixed(x)} ${height}Z`
      start = null
      return
    }
    const y = height - 1 - (Math.min(100, Math.max(0, value)) / 100) * (height - 2)
    x = next
    if (start === null) {
      start = x
      line += `M${fixed(x)} ${fixed(y)}`
      area += `M${fixed(x)} ${height}L${fixed(x)} ${fixed(y)}`
    } else {
      line += `L${fixed(x)} ${fixed(y)}`
      area += `L${fixed(x)} ${fixed(y)}`
    }
  })
  if (start !== null) area += `L${fixed(x)} ${height}Z`
  return { line, area }
}

function fixed(value: number): string {
  return value.toFixed(1)
}
