import { describe, expect, it } from 'vitest'
import { staleKeys } from '@/api/keys'
import { toProblem } from '@/api/problems'
import { showCommand, splitCommand } from '@/lib/command'
import { formatAgo, formatBytes, formatDuration, formatMetric, formatPercent } from '@/lib/format'
import { parseLabels, showLabels } from '@/lib/labels'
import { rank } from '@/lib/rank'
import { isPublished, returnPath } from '@/lib/return-path'
import { sparkPath } from '@/lib/spark'
import { filterToTarget } from '@/lib/target'
import { fileParts, isArchive } from '@/packages/file-name'
import { taskSpec, toBase64 } from '@/fanout/run-form'

describe('command lines', () => {
  it('are split by quotes and backslashes', () => {
    expect(splitCommand(`a 'b c' "d \\" e" f\\ g ''`)).toEqual(['a', 'b c', 'd " e', 'f g', ''])
    expect(splitCommand(`a 'open`)).toBeNull()
  })

  it('are shown so that splitting gives them back', () => {
    const argv = ['printf', '%s\n', "it's", '', 'a b']
    expect(splitCommand(showCommand(argv))).toEqual(argv)
    expect(showCommand(['sh', '-c', 'df | tail'])).toBe('df | tail')
  })

  it('become a specification only when complete', () => {
    const form = {
      target: ' all ',
      command: 'echo hi',
      shell: true,
      user: '',
      cwd: '',
      stdin: 'ü',
      timeoutS: 5,
      parallel: 2,
    }
    expect(taskSpec(form)).toMatchObject({
      target: 'all',
      argv: ['sh', '-c', 'echo hi'],
      user: null,
      stdin_base64: 'w7w=',
    })
    expect(taskSpec({ ...form, shell: false })?.argv).toEqual(['echo', 'hi'])
    expect(taskSpec({ ...form, shell: false, command: "echo '" })).toBeNull()
    expect(taskSpec({ ...form, target: ' ' })).toBeNull()
    expect(toBase64('')).toBe('')
  })
})

describe('formats', () => {
  it('write sizes in binary units', () => {
    expect([0, 1023, 1024, 1536, 1024 ** 3, null].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.5 KiB',
      '1.0 GiB',
      '–',
    ])
    expect(formatMetric(2048, 'bytes/s')).toBe('2.0 KiB/s')
    expect([0, 4.26, 99.6].map(formatPercent)).toEqual(['0%', '4.3%', '100%'])
  })

  it('write times in two units', () => {
    expect([0.25, 61, 3600, 90_061].map(formatDuration)).toEqual(['250 ms', '1m 1s', '1h', '1d 1h'])
    expect(formatAgo(100, 280, 'en')).toBe('3 min. ago')
  })
})

describe('targets', () => {
  it('take one word as a part of a name', () => {
    expect(['web', ' web-1 ', '', 'all', 'group:web', 'web-*'].map(filterToTarget)).toEqual([
      '*web*',
      '*web-1*',
      'all',
      'all',
      'group:web',
      'web-*',
    ])
  })

  it('keep the column of an error', () => {
    const problem = toProblem(400, { code: 'invalid_target', detail: 'no', column: 7 })
    expect([problem.code, problem.column, problem.message]).toEqual(['invalid_target', 7, 'no'])
    expect(toProblem(502, '<html>').code).toBe('internal')
  })
})

describe('labels', () => {
  it('are pairs', () => {
    expect(parseLabels('env=prod, site=fra x=')).toEqual({ env: 'prod', site: 'fra', x: '' })
    expect(parseLabels('env')).toBeNull()
    expect(showLabels({ a: '1', b: '2' })).toBe('a=1 b=2')
  })
})

describe('the way back after signing in', () => {
  it('never leaves these pages', () => {
    expect(returnPath('/nodes/a?x=1')).toBe('/nodes/a?x=1')
    for (const bad of ['//evil.example', '/\\evil', 'https://evil', '/sign-in', undefined]) {
      expect(returnPath(bad)).toBe('/nodes')
    }
  })

  it("are the hub's to answer where a service is published", () => {
    expect(isPublished('/published/app/')).toBe(true)
    expect(isPublished('/publishedness')).toBe(false)
  })
})

describe('the palette', () => {
  it('prefers prefixes, then word starts, then scattered letters', () => {
    const found = rank('web', ['edge-web', 'web-1', 'wide-bed', 'none'], (text) => text, 9)
    expect(found).toEqual(['web-1', 'edge-web', 'wide-bed'])
    expect(rank('wb', ['none', 'wide-bed'], (text) => text, 9)).toEqual(['wide-bed'])
  })
})

describe('sparklines', () => {
  it('break at gaps', () => {
    const { line, area } = sparkPath([0, 100, null, 50], 30, 10)
    expect(line.match(/M/g)).toHaveLength(2)
    expect(area.match(/Z/g)).toHaveLength(2)
  })
})

describe('package files', () => {
  it('say name and version', () => {
    expect(fileParts('my-shop-2.4.1.tar.gz')).toEqual({ name: 'my-shop', version: '2.4.1' })
    expect(fileParts('shop.zip')).toEqual({ name: '', version: '' })
    expect(isArchive('shop.rpm')).toBe(false)
  })
})

describe('events', () => {
  it('make only what they change stale', () => {
    expect(staleKeys({ kind: 'node.online', node: 'a' })).toEqual([['nodes'], ['node', 'a']])
    expect(staleKeys({ kind: 'run.finished', node: 'a' })).toEqual([['node', 'a', 'events']])
    expect(staleKeys({ kind: 'unheard.of', node: null })).toEqual([])
    expect(staleKeys({ kind: 'link.down', node: 'a' })).toEqual([
      ['links'],
      ['forwards'],
      ['node', 'a', 'events'],
    ])
  })
})
