/* Tasks, deployments and shells: what runs over tunnels. */
import { client, take } from './client'
import type { DeploymentSpec, TaskSpec } from './types'

const PAGE = 50

export const listTasks = (cursor?: string) =>
  take(client.GET('/api/v1/tasks', { params: { query: { limit: PAGE, cursor } } }))

export const getTask = (id: string) =>
  take(client.GET('/api/v1/tasks/{task_id}', { params: { path: { task_id: id } } }))

export const startTask = (body: TaskSpec) => take(client.POST('/api/v1/tasks', { body }))

export const cancelTask = (id: string) =>
  take(client.POST('/api/v1/tasks/{task_id}/cancel', { params: { path: { task_id: id } } }))

export const taskStream = (id: string) => `/api/v1/tasks/${encodeURIComponent(id)}/stream`

export const listDeployments = (cursor?: string) =>
  take(client.GET('/api/v1/deployments', { params: { query: { limit: PAGE, cursor } } }))

export const getDeployment = (id: string) =>
  take(
    client.GET('/api/v1/deployments/{deployment_id}', { params: { path: { deployment_id: id } } }),
  )

export const startDeployment = (body: DeploymentSpec) =>
  take(client.POST('/api/v1/deployments', { body }))

export const cancelDeployment = (id: string) =>
  take(
    client.POST('/api/v1/deployments/{deployment_id}/cancel', {
      params: { path: { deployment_id: id } },
    }),
  )

export const deploymentStream = (id: string) =>
  `/api/v1/deployments/${encodeURIComponent(id)}/stream`

export const listSessions = () =>
  take(client.GET('/api/v1/sessions', { params: { query: { limit: 200 } } }))

export const endSession = (id: string) =>
  take(client.DELETE('/api/v1/sessions/{session_id}', { params: { path: { session_id: id } } }))
