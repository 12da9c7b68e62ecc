import { describe, expect, it } from 'vitest'
import { roles, type Forward, type Role } from '@/api/types'
import {
  emptyLink,
  emptyService,
  isHostName,
  isLinkName,
  isServiceName,
  newLink,
  serviceSpec,
} from '@/forwards/forms'
import { leadsTo, listensAt, mayClose, nodesOfForward, showPlace, through } from '@/forwards/ways'

const local: Forward = {
  id: '1',
  kind: 'local',
  node: 'web-1',
  subject: 'mei',
  host: '127.0.0.1',
  port: 80,
  bind: null,
  listen_port: null,
  to_node: null,
  name: '',
  since: 0,
  last_activity: 0,
  connections: 0,
  connections_total: 0,
  sent_bytes: 0,
  received_bytes: 0,
}
const none = { host: '', port: null }
const listener = { bind: '::1', listen_port: 9000 }
const socks: Forward = { ...local, ...none, kind: 'socks' }
const reverse: Forward = { ...local, ...none, ...listener, kind: 'reverse' }
const link: Forward = { ...local, ...listener, kind: 'link', node: 'web-10', to_node: 'db-1' }
const words = { anywhere: 'anywhere', client: 'the client' }

describe('a forward', () => {
  it('says where it listens and where it leads', () => {
    expect([local, socks, reverse, link].map((forward) => leadsTo(forward, words))).toEqual([
      '127.0.0.1:80',
      'anywhere',
      'the client',
      'db-1 127.0.0.1:80',
    ])
    expect([local, socks, reverse, link].map(listensAt)).toEqual([
      '',
      '',
      '[::1]:9000',
      '[::1]:9000',
    ])
    expect(showPlace('db.internal', 5432)).toBe('db.internal:5432')
  })

  it('goes through the nodes at both its ends, by their whole names', () => {
    const all = [local, link]
    const at = (node: string) => through(all, node, nodesOfForward)
    expect([at('web-1'), at('web-10'), at('db-1'), at('web'), at('')]).toEqual([
      [local],
      [link],
      [link],
      [],
      all,
    ])
  })

  it('is closed by who opened it and by administrators only', () => {
    const as = (role: Role) => (wanted: Role) => roles.indexOf(role) >= roles.indexOf(wanted)
    expect(mayClose(local, 'mei', as('operator'))).toBe(true)
    expect(mayClose(local, 'mei', as('viewer'))).toBe(false)
    expect(mayClose(local, 'bo', as('deployer'))).toBe(false)
    expect(mayClose(local, 'bo', as('admin'))).toBe(true)
  })
})

describe('the form of a link', () => {
  const complete = { ...emptyLink('web-1'), name: 'db', port: 5432, toNode: 'db-1', toPort: 5432 }

  it('gives a link once it is complete', () => {
    expect(newLink({ ...complete, host: ' ', bind: ' 0.0.0.0 ' })).toEqual({
      name: 'db',
      from_node: 'web-1',
      bind: '0.0.0.0',
      port: 5432,
      to_node: 'db-1',
      host: '127.0.0.1',
      to_port: 5432,
    })
    for (const missing of [
      { name: '' },
      { name: 'a b' },
      { fromNode: '' },
      { port: undefined },
      { toNode: '' },
      { toPort: undefined },
    ]) {
      expect(newLink({ ...complete, ...missing }), JSON.stringify(missing)).toBeNull()
    }
  })

  it('takes the names that the hub takes', () => {
    expect(['', 'db', 'A.b_c-1', 'x'.repeat(64)].every(isLinkName)).toBe(true)
    expect(['-a', 'a b', 'ü', 'x'.repeat(65)].some(isLinkName)).toBe(false)
  })
})

describe('the form of a service', () => {
  const complete = {
    ...emptyService('web-1'),
    name: 'app',
    port: 3000,
    hostName: 'App.Example.org',
  }

  it('gives a service at a host name, in lower case', () => {
    expect(serviceSpec({ ...complete, keepHost: true, verify: true })).toEqual({
      name: 'app',
      node: 'web-1',
      host: '127.0.0.1',
      port: 3000,
      scheme: 'http',
      verify: false,
      host_name: 'app.example.org',
      keep_host: true,
    })
  })

  it("gives a service below the hub's address without what only a host name has", () => {
    expect(serviceSpec({ ...complete, at: 'path', keepHost: true })).toMatchObject({
      host_name: null,
      keep_host: false,
    })
  })

  it('gives none while it is not complete', () => {
    for (const missing of [
      { name: '' },
      { name: 'App' },
      { node: '' },
      { port: undefined },
      { hostName: '' },
      { hostName: 'nodot' },
    ]) {
      expect(serviceSpec({ ...complete, ...missing }), JSON.stringify(missing)).toBeNull()
    }
  })

  it('takes the names that the hub takes', () => {
    expect(['', 'app', 'a-1', 'x'.repeat(63)].every(isServiceName)).toBe(true)
    expect(['-a', 'a-', 'A', 'a.b', 'x'.repeat(64)].some(isServiceName)).toBe(false)
    expect(['', 'a.b', 'app.localhost'].every(isHostName)).toBe(true)
    expect(['a', 'a..b', 'a.b.', `${'x.'.repeat(127)}y`].some(isHostName)).toBe(false)
  })
})
