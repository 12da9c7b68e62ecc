/* Ways through nodes: open forwards, links, published services. */
import { client, everyPage, take } from './client'
import type { NewLink, ServiceSpec } from './types'

const PAGE = 500

export const listForwards = () =>
  everyPage((cursor) =>
    take(client.GET('/api/v1/forwards', { params: { query: { limit: PAGE, cursor } } })),
  )

/* One forward with its open connections. */
export const getForward = (id: string) =>
  take(client.GET('/api/v1/forwards/{forward_id}', { params: { path: { forward_id: id } } }))

export const closeForward = (id: string) =>
  take(client.DELETE('/api/v1/forwards/{forward_id}', { params: { path: { forward_id: id } } }))

export const listLinks = () =>
  everyPage((cursor) =>
    take(client.GET('/api/v1/links', { params: { query: { limit: PAGE, cursor } } })),
  )

export const createLink = (body: NewLink) => take(client.POST('/api/v1/links', { body }))

export const enableLink = (name: string, enabled: boolean) =>
  take(client.PATCH('/api/v1/links/{name}', { params: { path: { name } }, body: { enabled } }))

export const removeLink = (name: string) =>
  take(client.DELETE('/api/v1/links/{name}', { params: { path: { name } } }))

export const listPublished = () =>
  everyPage((cursor) =>
    take(client.GET('/api/v1/published', { params: { query: { limit: PAGE, cursor } } })),
  )

export const publishService = (body: ServiceSpec) =>
  take(client.POST('/api/v1/published', { body }))

export const withdrawService = (name: string) =>
  take(client.DELETE('/api/v1/published/{name}', { params: { path: { name } } }))
