import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import en from '@/locales/en'
import zh from '@/locales/zh'

function leaves(node: object, path = ''): Map<string, string> {
  const found = new Map<string, string>()
  for (const [key, value] of Object.entries(node) as [string, string | object][]) {
    const here = path ? `${path}.${key}` : key
    if (typeof value === 'string') found.set(here, value)
    else for (const [inner, text] of leaves(value, here)) found.set(inner, text)
  }
  return found
}

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name)
    if (statSync(path).isDirectory()) return name === 'locales' ? [] : sources(path)
    return /\.(vue|ts)$/.test(name) && name !== 'schema.d.ts' ? [readFileSync(path, 'utf8')] : []
  })
}

const english = leaves(en)
const chinese = leaves(zh)
const code = sources(join(import.meta.dirname, '../src')).join('\n')

describe('the catalogues', () => {
  it('have the same keys', () => {
    expect([...chinese.keys()].sort()).toEqual([...english.keys()].sort())
  })

  it('have the same placeholders in every text', () => {
    const names = (text: string) => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort()
    for (const [key, text] of english) {
      expect(names(chinese.get(key) ?? ''), key).toEqual(names(text))
    }
  })

  it('have as many plural forms in every text', () => {
    for (const [key, text] of english) {
      expect((chinese.get(key) ?? '').split('|').length, key).toBe(text.split('|').length)
    }
  })

  it('hold every key that the pages name', () => {
    const used = [...code.matchAll(/\bt\(\s*'([\w.-]+)'/g)].map(([, key]) => key ?? '')
    const chosen = [...code.matchAll(/\bt\(\s*[\w.!= ]+\? '([\w.-]+)' : '([\w.-]+)'/g)].flatMap(
      ([, a, b]) => [a ?? '', b ?? ''],
    )
    expect(used.length).toBeGreaterThan(100)
    expect([...used, ...chosen].filter((key) => !english.has(key))).toEqual([])
  })

  it('hold no key that no page names', () => {
    const built = [...code.matchAll(/\bt\(\s*`([\w.-]+)\.\$\{/g)].map(([, prefix]) => prefix ?? '')
    const unused = [...english.keys()].filter(
      (key) => !code.includes(`'${key}'`) && !built.some((prefix) => key.startsWith(`${prefix}.`)),
    )
    const byCode = unused.filter((key) => !/^(problem|state|event|stage)\./.test(key))
    expect(byCode).toEqual([])
  })
})
