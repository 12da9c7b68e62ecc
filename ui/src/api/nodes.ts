/* Nodes, groups and join tokens. */
import { client, everyPage, take } from './client'
import { Problem } from './problems'
import type { Node, Page, TokenSpec } from './types'

const PAGE = 500

/* A target that matches nothing is an error for a program, and an empty list for a page. */
async function orNone<T>(pages: Promise<Page<T>>): Promise<Page<T>> {
  try {
    return await pages
  } catch (error) {
    if (error instanceof Problem && error.code === 'nothing_matches') {
      return { items: [], next_cursor: null, total: 0 }
    }
    throw error
  }
}

export const listNodes = (target?: string) =>
  orNone(
    everyPage((cursor) =>
      take(client.GET('/api/v1/nodes', { params: { query: { target, limit: PAGE, cursor } } })),
    ),
  )

/* The first few nodes that an expression matches, and how many there are. */
export const previewTarget = (target: string, limit = 8, signal?: AbortSignal) =>
  orNone<Node>(take(client.GET('/api/v1/nodes', { params: { query: { target, limit } }, signal })))

export const getNode = (node: string) =>
  take(client.GET('/api/v1/nodes/{node}', { params: { path: { node } } }))

export const changeNode = (
  node: string,
  body: { name?: string; labels?: Record<string, string>; groups?: string[] },
) => take(client.PATCH('/api/v1/nodes/{node}', { params: { path: { node } }, body }))

export const removeNode = (node: string) =>
  take(client.DELETE('/api/v1/nodes/{node}', { params: { path: { node } } }))

export const revokeNode = (node: string, reason: string) =>
  take(client.POST('/api/v1/nodes/{node}/revoke', { params: { path: { node } }, body: { reason } }))

/* Lets a quarantined node in again. */
export const releaseNode = (node: string) =>
  take(client.POST('/api/v1/nodes/{node}/release', { params: { path: { node } } }))

export const nodeEvents = (node: string) =>
  take(
    client.GET('/api/v1/nodes/{node}/events', {
      params: { path: { node }, query: { limit: 200 } },
    }),
  )

export const nodeHistory = (node: string, sinceS: number) =>
  take(
    client.GET('/api/v1/nodes/{node}/metrics', {
      params: { path: { node }, query: { since_s: sinceS } },
    }),
  )

export const listGroups = () =>
  everyPage((cursor) =>
    take(client.GET('/api/v1/groups', { params: { query: { limit: PAGE, cursor } } })),
  )

export const createGroup = (name: string, description: string) =>
  take(client.POST('/api/v1/groups', { body: { name, description } }))

export const removeGroup = (group: string) =>
  take(client.DELETE('/api/v1/groups/{group}', { params: { path: { group } } }))

export const addToGroup = (group: string, node: string) =>
  take(client.PUT('/api/v1/groups/{group}/nodes/{node}', { params: { path: { group, node } } }))

export const removeFromGroup = (group: string, node: string) =>
  take(client.DELETE('/api/v1/groups/{group}/nodes/{node}', { params: { path: { group, node } } }))

export const listJoinTokens = () =>
  everyPage((cursor) =>
    take(client.GET('/api/v1/tokens', { params: { query: { limit: PAGE, cursor } } })),
  )

export const createJoinToken = (body: TokenSpec) => take(client.POST('/api/v1/tokens', { body }))

export const removeJoinToken = (id: string) =>
  take(client.DELETE('/api/v1/tokens/{token_id}', { params: { path: { token_id: id } } }))
