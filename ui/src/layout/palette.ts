/* What the command palette offers: terminals and pages of nodes, then the sections. */
import { Server } from 'lucide-vue-next'
import type { Component } from 'vue'
import type { Node, Role } from '@/api/types'
import { shellIcon, type Section } from './navigation'

export interface PaletteEntry {
  label: string
  hint: string
  path: string
  icon: Component
  status?: string
}

export function paletteEntries(
  nodes: readonly Pick<Node, 'name' | 'status'>[],
  sections: readonly Section[],
  can: (role: Role) => boolean,
  t: (key: string) => string,
): PaletteEntry[] {
  const pages = sections.flatMap(({ title, items }) =>
    items.map(({ name, path, icon }) => ({
      label: t(`nav.${name}`),
      hint: t(`section.${title}`),
      path,
      icon,
    })),
  )
  const places = nodes.map(({ name, status }) => ({
    label: name,
    hint: t('palette.node'),
    path: `/nodes/${encodeURIComponent(name)}`,
    icon: Server,
    status,
  }))
  const shells = nodes
    .filter(({ status }) => status === 'online' && can('operator'))
    .map(({ name }) => ({
      label: `${name} ${t('palette.terminal')}`,
      hint: t('palette.shell'),
      path: `/nodes/${encodeURIComponent(name)}/terminal`,
      icon: shellIcon,
    }))
  return [...pages, ...places, ...shells]
}
