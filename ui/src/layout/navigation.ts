/* The sections of the side bar, the bottom bar and the palette. */
import {
  Boxes,
  FileClock,
  KeyRound,
  ListChecks,
  Monitor,
  Network,
  Package,
  Rocket,
  Server,
  SquareTerminal,
  TerminalSquare,
  Ticket,
  Users,
} from 'lucide-vue-next'
import type { Component } from 'vue'
import type { Role } from '@/api/types'

export interface Destination {
  name: string
  path: string
  icon: Component
  role?: Role
}
export interface Section {
  title: string
  items: Destination[]
}

export const sections: Section[] = [
  {
    title: 'fleet',
    items: [
      { name: 'nodes', path: '/nodes', icon: Server },
      { name: 'groups', path: '/groups', icon: Boxes },
    ],
  },
  {
    title: 'operate',
    items: [
      { name: 'run', path: '/run', icon: TerminalSquare, role: 'operator' },
      { name: 'tasks', path: '/tasks', icon: ListChecks },
      { name: 'sessions', path: '/sessions', icon: Monitor },
      { name: 'forwards', path: '/forwards', icon: Network },
    ],
  },
  {
    title: 'ship',
    items: [
      { name: 'packages', path: '/packages', icon: Package },
      { name: 'deployments', path: '/deployments', icon: Rocket },
    ],
  },
  {
    title: 'access',
    items: [
      { name: 'users', path: '/users', icon: Users, role: 'admin' },
      { name: 'api-tokens', path: '/api-tokens', icon: KeyRound },
      { name: 'join-tokens', path: '/join-tokens', icon: Ticket, role: 'admin' },
      { name: 'audit', path: '/audit', icon: FileClock, role: 'admin' },
    ],
  },
]

export const shellIcon = SquareTerminal

/* The sections with only what the role may open. */
export function allowedSections(can: (role: Role) => boolean): Section[] {
  return sections
    .map(({ title, items }) => ({
      title,
      items: items.filter(({ role }) => role === undefined || can(role)),
    }))
    .filter(({ items }) => items.length > 0)
}
