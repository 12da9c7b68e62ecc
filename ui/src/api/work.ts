/* Tasks, deployments, shells and forwards: what runs over tunnels. */
import { client, take } from './client'
import type { DeploymentSpec, TaskSpec } from './types'

const PAGE = 50

export const listTasks = (cursor?: string) =>
  take(client.GET('/api/v1/tasks', { params: { query: { limit: PAGE, cursor } } }))

export const getTask = (id: string) =>
  take(client.GET('/api/v1/tasks/{id}', { params: { path: { id } } }))

export const startTask = (body: TaskSpec) => take(client.POST('/api/v1/tasks', { body }))

export const cancelTask = (id: string) =>
  take(client.POST('/api/v1/tasks/{id}/cancel', { params: { path: { id } } }))

export const taskStream = (id: string) => `/api/v1/tasks/${encodeURIComponent(id)}/stream`

export const listDeployments = (cursor?: string) =>
  take(client.GET('/api/v1/deployments', { params: { query: { limit: PAGE, cursor } } }))

export const getDeployment = (id: string) =>
  take(client.GET('/api/v1/deployments/{id}', { params: { path: { id } } }))

export const startDeployment = (body: DeploymentSpec) =>
  take(client.POST('/api/v1/deployments', { body }))

export const cancelDeployment = (id: string) =>
  take(client.POST('/api/v1/deployments/{id}/cancel', { params: { path: { id } } }))

export const deploymentStream = (id: string) =>
  `/api/v1/deployments/${encodeURIComponent(id)}/stream`

export const listSessions = () =>
  take(client.GET('/api/v1/sessions', { params: { query: { limit: 200 } } }))

export const endSession = (id: string) =>
  take(client.DELETE('/api/v1/sessions/{id}', { params: { path: { id } } }))

export const listForwards = () => take(client.GET('/api/v1/forwards'))
