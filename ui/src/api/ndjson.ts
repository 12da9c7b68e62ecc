/* Reads a stream of JSON lines, such as a task's output, as it arrives. */
import { refused } from './client'
import { unreachable } from './problems'

const MAX_LINE = 4 * 1024 * 1024

/* Splits text into lines across any cut; a line longer than 4 Mi characters is an error. */
export class LineSplitter {
  private rest = ''

  push(text: string): string[] {
    const lines = (this.rest + text).split('\n')
    this.rest = lines.pop() ?? ''
    if (this.rest.length > MAX_LINE) throw new Error('a line of the stream is too long')
    return lines.filter((line) => line.trim() !== '')
  }
}

/* Calls `take` for each object of the stream at `url`; resolves at its end. */
export async function readLines(
  url: string,
  take: (value: unknown) => void,
  signal: AbortSignal,
): Promise<void> {
  const response = await fetch(url, { signal, credentials: 'same-origin' })
  if (!response.ok) throw refused(response.status, await response.text())
  if (response.body === null) throw unreachable()
  const reader = response.body.getReader()
  const decoder = new TextDecoder()
  const splitter = new LineSplitter()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    for (const line of splitter.push(decoder.decode(value, { stream: true }))) {
      take(JSON.parse(line))
    }
  }
}
