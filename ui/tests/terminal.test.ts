import { describe, expect, it } from 'vitest'
import { Acknowledger } from '@/terminal/acknowledge'
import { binaryBytes, controlled } from '@/terminal/keys'

describe('acknowledgement', () => {
  it('goes out every 64 KiB of a flood and for the rest at its end', () => {
    const sent: number[] = []
    const acknowledger = new Acknowledger((total) => sent.push(total))
    for (let piece = 0; piece < 10; piece += 1) acknowledger.received(16 * 1024)
    for (let piece = 0; piece < 10; piece += 1) acknowledger.wrote(16 * 1024)
    expect(sent).toEqual([65_536, 131_072, 163_840])
  })

  it('follows each keystroke’s echo at once', () => {
    const sent: number[] = []
    const acknowledger = new Acknowledger((total) => sent.push(total))
    for (const size of [1, 3]) {
      acknowledger.received(size)
      acknowledger.wrote(size)
    }
    expect(sent).toEqual([1, 4])
  })
})

describe('keys', () => {
  it('give control characters', () => {
    expect([controlled('c'), controlled('['), controlled('1'), controlled('ab')]).toEqual([
      '\x03',
      '\x1b',
      '1',
      'ab',
    ])
    expect([...binaryBytes('\x1b\xff')]).toEqual([0x1b, 0xff])
  })
})
