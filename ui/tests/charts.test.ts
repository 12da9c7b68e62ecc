import { describe, expect, it } from 'vitest'
import { buildPanels, findSpaces } from '@/charts/panels'
import { lowerBound, Samples } from '@/charts/samples'

const percent = (name: string) => ({ name, unit: 'percent' })
const bytes = (name: string) => ({ name, unit: 'bytes' })
const rate = (name: string) => ({ name, unit: 'bytes/s' })

describe('panels', () => {
  it('gather series by name, in a fixed order', () => {
    const panels = buildPanels([
      rate('net.eth0.rx'),
      percent('cpu.core.0'),
      percent('cpu.total'),
      rate('net.eth0.tx'),
      bytes('disk./.used'),
      bytes('memory.used'),
      bytes('memory.total'),
      percent('memory.percent'),
    ])
    expect(panels).toEqual([
      { id: 'cpu', unit: 'percent', max: 100, lines: [{ index: 2, label: 'total' }] },
      { id: 'cores', unit: 'percent', max: 100, lines: [{ index: 1, label: '0' }] },
      { id: 'memory', unit: 'bytes', ceiling: 6, lines: [{ index: 5, label: 'used' }] },
      {
        id: 'network',
        unit: 'bytes/s',
        lines: [
          { index: 0, label: 'eth0 ↓' },
          { index: 3, label: 'eth0 ↑' },
        ],
      },
    ])
  })

  it('find file systems whose mount holds dots and slashes', () => {
    const series = [bytes('disk./var/lib/a.b.used'), bytes('disk./var/lib/a.b.total')]
    expect(findSpaces(series)).toEqual([{ mount: '/var/lib/a.b', used: 0, total: 1 }])
  })
})

describe('samples', () => {
  it('draw a pause as a gap', () => {
    const samples = new Samples()
    samples.setSchema([percent('cpu.total')])
    samples.push(1, [10])
    samples.push(2, [20])
    samples.push(9, [30])
    expect(samples.window(0, [0])).toEqual([
      [1, 2, 5.5, 9],
      [10, 20, null, 30],
    ])
  })

  it('put history before what is live, by name', () => {
    const samples = new Samples()
    samples.setSchema([percent('cpu.total'), percent('cpu.user')])
    samples.push(100, [50, 40])
    samples.prepend({
      series: [percent('cpu.user'), percent('gone')],
      at: [80, 90, 100],
      values: [
        [1, 2, 3],
        [9, 9, 9],
      ],
    })
    expect(samples.window(0, [0, 1])).toEqual([
      [80, 90, 100],
      [null, null, 50],
      [1, 2, 40],
    ])
  })

  it('refuse what is not later, and forget what is older than an hour', () => {
    const samples = new Samples()
    samples.setSchema([percent('cpu.total')])
    samples.push(10, [1])
    samples.push(10, [2])
    samples.push(9, [3])
    expect(samples.at).toEqual([10])
    for (let at = 11; at < 5000; at += 1) samples.push(at, [at])
    expect(samples.at.length).toBeLessThan(4000)
    expect(samples.at.length).toBe(samples.columns[0]?.length)
    expect(samples.latest(0)).toBe(4999)
  })

  it('search by halves', () => {
    expect([0, 1, 2, 3, 9].map((bound) => lowerBound([1, 2, 3], bound))).toEqual([0, 0, 1, 2, 3])
  })
})
