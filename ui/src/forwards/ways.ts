/* Forwards as text, which of them concern a node, and who may close one. */
import type { Forward, Link, PublishedService, Role } from '@/api/types'

/* HOST:PORT; an IPv6 address stands in brackets. */
export function showPlace(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/* Where a node listens, empty when nothing does. */
export function listensAt({ bind, listen_port: port }: Forward): string {
  return bind !== null && port !== null ? showPlace(bind, port) : ''
}

/* Where connections come out; `words` name what has no address. */
export function leadsTo(
  { kind, host, port, to_node: toNode }: Forward,
  words: { anywhere: string; client: string },
): string {
  if (port === null) return { socks: words.anywhere, reverse: words.client }[kind as string] ?? ''
  const place = showPlace(host, port)
  return toNode === null ? place : `${toNode} ${place}`
}

/* The nodes that something goes through. */
export const nodesOfForward = ({ node, to_node: toNode }: Forward): string[] =>
  toNode === null ? [node] : [node, toNode]
export const nodesOfLink = ({ from_node: from, to_node: to }: Link): string[] => [from, to]
export const nodesOfService = ({ node }: PublishedService): string[] => [node]

/* Only what goes through the node; everything when none is named. */
export function through<T>(
  items: readonly T[],
  node: string,
  nodesOf: (item: T) => string[],
): readonly T[] {
  return node === '' ? items : items.filter((item) => nodesOf(item).includes(node))
}

/* Operators close their own, administrators anybody's. */
export function mayClose(
  { subject }: Forward,
  user: string | undefined,
  can: (role: Role) => boolean,
): boolean {
  return can('admin') || (can('operator') && subject === user)
}
