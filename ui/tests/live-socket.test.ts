import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { backoffMs } from '@/live/backoff'
import { LiveSocket, type LiveState, type Wire } from '@/live/socket'

class FakeWire implements Wire {
  sent: string[] = []
  closed = false
  onmessage: Wire['onmessage'] = null
  onclose: Wire['onclose'] = null
  onopen: Wire['onopen'] = null
  send(text: string): void {
    this.sent.push(text)
  }
  close(): void {
    this.closed = true
  }
  receive(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) })
  }
}

let wires: FakeWire[]
let states: LiveState[]
let tickets: number
let socket: LiveSocket
const events: unknown[] = []

beforeEach(() => {
  vi.useFakeTimers()
  wires = []
  states = []
  tickets = 0
  socket = new LiveSocket({
    ticket: () => Promise.resolve(`t${(tickets += 1)}`),
    open: () => {
      const wire = new FakeWire()
      wires.push(wire)
      return wire
    },
    onState: (state) => states.push(state),
    onEvent: (event) => events.push(event),
    onFleet: () => undefined,
    random: () => 0.5,
  })
})
afterEach(() => {
  socket.stop()
  vi.useRealTimers()
})

async function connected(index = 0): Promise<FakeWire> {
  await vi.advanceTimersByTimeAsync(0)
  const wire = wires[index]
  if (!wire) throw new Error('no wire was opened')
  wire.onopen?.()
  wire.receive({ type: 'ready' })
  return wire
}

describe('the live socket', () => {
  it('sends its ticket first, and what was asked for before it was ready', async () => {
    socket.watch('web-1', { schema: vi.fn(), sample: vi.fn() })
    socket.watchFleet()
    socket.start()
    const wire = await connected()
    expect(wire.sent).toEqual(['{"ticket":"t1"}', '{"fleet":true}', '{"watch":["web-1"]}'])
    expect(states).toEqual(['connecting', 'ready'])
  })

  it('passes samples to every watcher of the node, and stops when the last one goes', async () => {
    socket.start()
    const wire = await connected()
    const first = { schema: vi.fn(), sample: vi.fn() }
    const second = { schema: vi.fn(), sample: vi.fn() }
    const stopFirst = socket.watch('a', first)
    const stopSecond = socket.watch('a', second)
    wire.receive({ type: 'sample', node: 'a', at: 5, values: [1, null] })
    expect(first.sample).toHaveBeenCalledWith(5, [1, null])
    expect(second.sample).toHaveBeenCalledTimes(1)
    stopFirst()
    expect(wire.sent.at(-1)).toBe('{"watch":["a"]}')
    stopSecond()
    expect(wire.sent.at(-1)).toBe('{"watch":[]}')
  })

  it('reconnects with a new ticket and asks again for what is watched', async () => {
    socket.watchFleet()
    socket.start()
    const wire = await connected()
    wire.onclose?.()
    expect(states.at(-1)).toBe('waiting')
    await vi.advanceTimersByTimeAsync(1000)
    const second = await connected(1)
    expect(second.sent).toEqual(['{"ticket":"t2"}', '{"fleet":true}'])
    expect(states.at(-1)).toBe('ready')
  })

  it('waits longer after each failure and can be hurried', async () => {
    socket.start()
    const wire = await connected()
    wire.onclose?.()
    await vi.advanceTimersByTimeAsync(400)
    expect(wires).toHaveLength(2)
    wires[1]?.onclose?.()
    await vi.advanceTimersByTimeAsync(400)
    expect(wires).toHaveLength(2)
    socket.retryNow()
    await vi.advanceTimersByTimeAsync(0)
    expect(wires).toHaveLength(3)
  })

  it('stays stopped', async () => {
    socket.start()
    const wire = await connected()
    socket.stop()
    expect(wire.closed).toBe(true)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(wires).toHaveLength(1)
  })
})

describe('the back-off', () => {
  it('doubles to 30 s and is never zero', () => {
    expect(backoffMs(0, () => 1)).toBe(500)
    expect(backoffMs(3, () => 1)).toBe(4000)
    expect(backoffMs(99, () => 1)).toBe(30_000)
    expect(backoffMs(99, () => 0)).toBe(6000)
  })
})
