/* The shell socket of docs/design/api.md: binary frames are the terminal's bytes, text frames control. */
import { getTicket } from '@/api/access'

export interface ShellEnd {
  kind: 'exited' | 'error' | 'lost'
  exitCode: number | null
  signal: number | null
  text: string
}
export interface ShellHandlers {
  opened: (session: string) => void
  bytes: (data: Uint8Array) => void
  ended: (end: ShellEnd) => void
}
type Control =
  | { type: 'opened'; session: string }
  | { type: 'exited'; exit_code: number | null; signal: number | null; reason: string }
  | { type: 'error'; code: string; detail: string }

export class Shell {
  private socket: WebSocket | null = null
  private ended = false

  constructor(private readonly handlers: ShellHandlers) {}

  async open(node: string, rows: number, columns: number, user?: string): Promise<void> {
    const { ticket } = await getTicket('shell', node)
    if (this.ended) return
    const url = new URL('/api/v1/shell', location.href)
    url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:'
    const socket = (this.socket = new WebSocket(url))
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => {
      socket.send(JSON.stringify({ ticket, node, rows, columns, ...(user && { user }) }))
    }
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (typeof data === 'string') this.control(JSON.parse(data) as Control)
      else this.handlers.bytes(new Uint8Array(data))
    }
    socket.onclose = () => {
      this.end({ kind: 'lost', exitCode: null, signal: null, text: '' })
    }
  }

  input(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(bytes)
  }
  resize(rows: number, columns: number): void {
    this.send({ resize: [rows, columns] })
  }
  acknowledge(total: number): void {
    this.send({ ack: total })
  }
  close(): void {
    this.ended = true
    this.socket?.close()
  }

  private send(message: object): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message))
  }
  private control(message: Control): void {
    switch (message.type) {
      case 'opened':
        this.handlers.opened(message.session)
        break
      case 'exited':
        this.end({
          kind: 'exited',
          exitCode: message.exit_code,
          signal: message.signal,
          text: message.reason,
        })
        break
      case 'error':
        this.end({ kind: 'error', exitCode: null, signal: null, text: message.detail })
        break
    }
  }
  private end(end: ShellEnd): void {
    if (this.ended) return
    this.ended = true
    this.handlers.ended(end)
  }
}
