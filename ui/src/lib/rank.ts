/* Fuzzy search: every character of the query in order; prefixes and word starts come first. */
export function rank<T>(
  query: string,
  items: readonly T[],
  text: (item: T) => string,
  limit: number,
): T[] {
  const wanted = query.trim().toLowerCase()
  if (wanted === '') return items.slice(0, limit)
  return items
    .map((item) => ({ item, score: score(wanted, text(item).toLowerCase()) }))
    .filter(({ score }) => score > 0)
    .sort((a, b) => b.score - a.score)
    .slice(0, limit)
    .map(({ item }) => item)
}

/* 0 when the text does not contain the query's characters in order. */
export function score(query: string, text: string): number {
  const whole = text.indexOf(query)
  if (whole === 0) return 1000 - text.length
  if (whole > 0) {
    return (/[\s\-_./]/.test(text.charAt(whole - 1)) ? 800 : 600) - whole - text.length / 10
  }
  let at = -1
  let gaps = 0
  for (const char of query) {
    const next = text.indexOf(char, at + 1)
    if (next < 0) return 0
    gaps += next - at - 1
    at = next
  }
  return Math.max(1, 300 - gaps * 5)
}
