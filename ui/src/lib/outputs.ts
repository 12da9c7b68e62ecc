/* Collects a task's stream and groups nodes whose results are the same. */

export type TaskLine =
  | { type: 'output'; node: string; stream: 'stdout' | 'stderr'; data: string }
  | {
      type: 'result'
      node: string
      state: string
      exit_code: number | null
      signal: number | null
      reason: string
    }
  | { type: 'summary'; task: string; ok: number; failed: number; state: string }

/* A piece of output from one of the two streams. */
export interface Piece {
  stream: 'stdout' | 'stderr'
  text: string
}
export interface NodeOutput {
  node: string
  state: string
  exitCode: number | null
  signal: number | null
  reason: string
  pieces: Piece[]
  /* Characters dropped from the middle because the page keeps a bounded amount. */
  dropped: number
  size: number
}
export interface OutputGroup {
  key: string
  nodes: string[]
  sample: NodeOutput
}

const KEEP = 256 * 1024

export const finalStates = new Set([
  'succeeded',
  'failed',
  'timed_out',
  'expired',
  'cancelled',
  'rejected',
  'skipped',
  'lost',
])

export class TaskOutputs {
  readonly nodes = new Map<string, NodeOutput>()
  summary: Extract<TaskLine, { type: 'summary' }> | null = null

  take(line: TaskLine): void {
    switch (line.type) {
      case 'output':
        this.append(this.of(line.node), line.stream, line.data)
        break
      case 'result': {
        const output = this.of(line.node)
        output.state = line.state
        output.exitCode = line.exit_code
        output.signal = line.signal
        output.reason = line.reason
        break
      }
      case 'summary':
        this.summary = line
        break
    }
  }

  /* Groups of equal results, larger groups first, running nodes each on their own. */
  groups(): OutputGroup[] {
    const found = new Map<string, OutputGroup>()
    for (const output of this.nodes.values()) {
      const done = finalStates.has(output.state)
      const key = done ? resultKey(output) : `running ${output.node}`
      const group = found.get(key)
      if (group) group.nodes.push(output.node)
      else found.set(key, { key, nodes: [output.node], sample: output })
    }
    const groups = [...found.values()]
    for (const group of groups) group.nodes.sort()
    return groups.sort((a, b) => b.nodes.length - a.nodes.length || a.key.localeCompare(b.key))
  }

  of(node: string): NodeOutput {
    let output = this.nodes.get(node)
    if (!output) {
      output = {
        node,
        state: 'queued',
        exitCode: null,
        signal: null,
        reason: '',
        pieces: [],
        dropped: 0,
        size: 0,
      }
      this.nodes.set(node, output)
    }
    return output
  }

  private append(output: NodeOutput, stream: Piece['stream'], text: string): void {
    if (!finalStates.has(output.state)) output.state = 'running'
    const last = output.pieces.at(-1)
    if (last?.stream === stream) last.text += text
    else output.pieces.push({ stream, text })
    output.size += text.length
    while (output.size > KEEP) this.trim(output)
  }

  private trim(output: NodeOutput): void {
    const first = output.pieces[0]
    if (!first) return
    const excess = Math.min(output.size - KEEP, first.text.length)
    first.text = first.text.slice(excess)
    if (first.text === '') output.pieces.shift()
    output.size -= excess
    output.dropped += excess
  }
}

function resultKey(output: NodeOutput): string {
  const of = (stream: Piece['stream']) =>
    output.pieces.filter((piece) => piece.stream === stream).map((piece) => piece.text)
  return JSON.stringify([
    output.state,
    output.exitCode,
    output.signal,
    output.reason,
    of('stdout').join(''),
    of('stderr').join(''),
  ])
}
