/* The names under which the pages use the hub's schemas; the fields come from the OpenAPI document. */
import type { components } from './schema'

type Schemas = components['schemas']

export type User = Schemas['User']
export type Session = Schemas['Session']
export type Node = Schemas['Node']
export type HubEvent = Schemas['Event']
export type SeriesInfo = Schemas['SeriesInfo']
export type History = Schemas['History']
export type Group = Schemas['GroupView']
export type JoinToken = Schemas['JoinToken']
export type NewJoinToken = Schemas['NewJoinToken']
export type TokenSpec = Schemas['TokenRequest']
export type Task = Schemas['Task']
export type TaskSpec = Schemas['TaskSpec']
export type Run = Schemas['Run']
export type Package = Schemas['Package']
export type Deployment = Schemas['Deployment']
export type DeploymentNode = Schemas['DeploymentNode']
export type DeploymentSpec = Schemas['DeploymentSpec']
export type ShellSession = Schemas['ShellSession']
export type Forward = Schemas['ForwardView']
export type Link = Schemas['LinkView']
export type NewLink = Schemas['NewLink']
export type PublishedService = Schemas['PublishedService']
export type ServiceSpec = Schemas['ServiceSpec']
export type ApiToken = Schemas['ApiToken']
export type NewApiToken = Schemas['NewToken']
export type AuditEntry = Schemas['AuditEntry']

export type Role = Schemas['Role']
export const roles: readonly Role[] = ['viewer', 'operator', 'deployer', 'admin']

/* One page of a list, as every list route answers. */
export interface Page<T> {
  items: T[]
  next_cursor?: string | null
  total: number
}
