/* The forms of links and published services, and the specs that the hub takes. */
import type { NewLink, ServiceSpec } from '@/api/types'

/* An emptied number field is undefined. */
type Port = number | undefined

export interface LinkForm {
  name: string
  fromNode: string
  bind: string
  port: Port
  toNode: string
  host: string
  toPort: Port
}

export interface ServiceForm {
  name: string
  node: string
  host: string
  port: Port
  scheme: 'http' | 'https'
  verify: boolean
  /* A host name of its own, or a path below the hub's address. */
  at: 'host' | 'path'
  hostName: string
  keepHost: boolean
}

const LINK_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const SERVICE_NAME = new RegExp(`^${LABEL}$`)
const HOST_NAME = new RegExp(`^${LABEL}(?:\\.${LABEL})+$`)
const LOOPBACK = '127.0.0.1'

/* Whether a name can be taken; an empty one is not wrong yet. */
export const isLinkName = (name: string): boolean => name === '' || LINK_NAME.test(name)
export const isServiceName = (name: string): boolean => name === '' || SERVICE_NAME.test(name)
export const isHostName = (name: string): boolean =>
  name === '' || (name.length <= 253 && HOST_NAME.test(name.toLowerCase()))

export const emptyLink = (node = ''): LinkForm => ({
  name: '',
  fromNode: node,
  bind: LOOPBACK,
  port: undefined,
  toNode: '',
  host: LOOPBACK,
  toPort: undefined,
})

export const emptyService = (node = ''): ServiceForm => ({
  name: '',
  node,
  host: LOOPBACK,
  port: undefined,
  scheme: 'http',
  verify: false,
  at: 'host',
  hostName: '',
  keepHost: false,
})

/* Null while the form is not complete. */
export function newLink(form: LinkForm): NewLink | null {
  const { name, fromNode, bind, port, toNode, host, toPort } = form
  if (name === '' || !isLinkName(name) || fromNode === '' || toNode === '') return null
  if (port === undefined || toPort === undefined) return null
  return {
    name,
    from_node: fromNode,
    bind: bind.trim() || LOOPBACK,
    port,
    to_node: toNode,
    host: host.trim() || LOOPBACK,
    to_port: toPort,
  }
}

/* Null while the form is not complete. */
export function serviceSpec(form: ServiceForm): ServiceSpec | null {
  const { name, node, host, port, scheme, verify, at, hostName, keepHost } = form
  if (name === '' || !isServiceName(name) || node === '' || port === undefined) return null
  const own = at === 'host'
  if (own && (hostName === '' || !isHostName(hostName))) return null
  return {
    name,
    node,
    host: host.trim() || LOOPBACK,
    port,
    scheme,
    verify: scheme === 'https' && verify,
    host_name: own ? hostName.toLowerCase() : null,
    keep_host: own && keepHost,
  }
}
