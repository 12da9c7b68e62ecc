/* Sessions of this browser, users, API tokens, audit. */
import { client, take } from './client'
import type { Role } from './types'

export const getSession = () => take(client.GET('/api/v1/session'))

export const signIn = (username: string, password: string) =>
  take(client.POST('/api/v1/session', { body: { username, password } }))

export const signOut = () => take(client.DELETE('/api/v1/session'))

export const changePassword = (current: string, next: string) =>
  take(client.POST('/api/v1/session/password', { body: { current, new: next } }))

export const getTicket = (purpose: 'live' | 'shell', node?: string) =>
  take(client.POST('/api/v1/tickets', { body: { purpose, node } }))

export const getAbout = () => take(client.GET('/api/v1/about'))

export const listUsers = () => take(client.GET('/api/v1/users'))

export const createUser = (name: string, password: string, role: Role) =>
  take(client.POST('/api/v1/users', { body: { name, password, role } }))

export const changeUser = (
  name: string,
  body: { role?: Role; disabled?: boolean; password?: string },
) => take(client.PATCH('/api/v1/users/{name}', { params: { path: { name } }, body }))

export const removeUser = (name: string) =>
  take(client.DELETE('/api/v1/users/{name}', { params: { path: { name } } }))

export const listApiTokens = () => take(client.GET('/api/v1/api-tokens'))

export const createApiToken = (name: string, role: Role, ttlS: number | null) =>
  take(client.POST('/api/v1/api-tokens', { body: { name, role, ttl_s: ttlS } }))

export const removeApiToken = (id: string) =>
  take(client.DELETE('/api/v1/api-tokens/{token_id}', { params: { path: { token_id: id } } }))

export const listAudit = (filter: { cursor?: string; subject?: string; act?: string }) =>
  take(client.GET('/api/v1/audit', { params: { query: { limit: 100, ...filter } } }))
