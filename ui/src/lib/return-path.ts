/* Where to go after signing in: a path of these pages, never another host. */
export function returnPath(query: unknown): string {
  if (typeof query !== 'string' || !/^\/(?![/\\])/.test(query)) return '/nodes'
  return query.startsWith('/sign-in') ? '/nodes' : query
}

/* Whether a path is a published service's, which the hub answers and not these pages. */
export function isPublished(path: string): boolean {
  return path.startsWith('/published/')
}
