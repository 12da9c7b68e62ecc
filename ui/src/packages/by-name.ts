/* Packages grouped by name, the newest version first. */
import type { Package } from '@/api/types'

export interface NamedPackage {
  name: string
  latest: Package
  versions: Package[]
  nodeCount: number
}

export function byName(packages: readonly Package[]): NamedPackage[] {
  const found = new Map<string, Package[]>()
  for (const item of packages) found.set(item.name, [...(found.get(item.name) ?? []), item])
  return [...found]
    .flatMap(([name, versions]) => {
      versions.sort((a, b) => b.created_at - a.created_at)
      const latest = versions[0]
      const nodeCount = new Set(versions.flatMap(({ nodes }) => nodes)).size
      return latest ? [{ name, latest, versions, nodeCount }] : []
    })
    .sort((a, b) => a.name.localeCompare(b.name))
}
