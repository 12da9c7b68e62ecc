import { describe, expect, it } from 'vitest'
import { LineSplitter } from '@/api/ndjson'
import { TaskOutputs, type TaskLine } from '@/lib/outputs'

const output = (node: string, data: string, stream: 'stdout' | 'stderr' = 'stdout'): TaskLine => ({
  type: 'output',
  node,
  stream,
  data,
})
const result = (node: string, exit_code = 0): TaskLine => ({
  type: 'result',
  node,
  state: exit_code === 0 ? 'succeeded' : 'failed',
  exit_code,
  signal: null,
  reason: '',
})

function collect(...lines: TaskLine[]): TaskOutputs {
  const outputs = new TaskOutputs()
  for (const line of lines) outputs.take(line)
  return outputs
}

describe('outputs', () => {
  it('group nodes whose results are the same, whatever the pieces', () => {
    const outputs = collect(
      output('a', 'one\n'),
      output('a', 'two\n'),
      output('b', 'one\ntwo\n'),
      output('c', 'other\n'),
      result('a'),
      result('b'),
      result('c'),
    )
    expect(outputs.groups().map(({ nodes }) => nodes)).toEqual([['a', 'b'], ['c']])
  })

  it('keep exit codes and streams apart', () => {
    const outputs = collect(
      output('a', 'x'),
      output('b', 'x', 'stderr'),
      output('c', 'x'),
      result('a'),
      result('b'),
      result('c', 1),
    )
    expect(outputs.groups()).toHaveLength(3)
  })

  it('show a running node on its own', () => {
    const outputs = collect(output('a', 'x'), output('b', 'x'))
    expect(outputs.groups().map(({ sample }) => sample.state)).toEqual(['running', 'running'])
  })

  it('keep a bounded amount and count the rest', () => {
    const outputs = new TaskOutputs()
    for (let piece = 0; piece < 40; piece += 1) {
      outputs.take(output('a', String(piece % 10).repeat(10_000), piece % 2 ? 'stdout' : 'stderr'))
    }
    const kept = outputs.of('a')
    const size = kept.pieces.reduce((sum, { text }) => sum + text.length, 0)
    expect(size).toBe(kept.size)
    expect(kept.size + kept.dropped).toBe(400_000)
    expect(kept.size).toBeLessThanOrEqual(256 * 1024)
  })
})

describe('lines', () => {
  it('are found across any cut', () => {
    const text = '{"a":1}\n\n{"b":"ü"}\n{"c":3}\n'
    for (let cut = 0; cut <= text.length; cut += 1) {
      const splitter = new LineSplitter()
      const lines = [...splitter.push(text.slice(0, cut)), ...splitter.push(text.slice(cut))]
      expect(lines).toEqual(['{"a":1}', '{"b":"ü"}', '{"c":3}'])
    }
  })
})
