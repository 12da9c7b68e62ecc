/* The filter of the nodes page: one bare word means “contains”, anything else is a target expression. */
const BARE = /^[\w.-]+$/

export function filterToTarget(text: string): string {
  const trimmed = text.trim()
  if (trimmed === '' || trimmed === 'all') return 'all'
  return BARE.test(trimmed) ? `*${trimmed}*` : trimmed
}
