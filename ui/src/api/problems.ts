/* Errors of the hub: RFC 9457 documents with a stable `code`, as one exception. */

export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    /* Position in a target expression, from 1. */
    readonly column?: number,
  ) {
    super(detail)
    this.name = 'Problem'
  }
}

interface ProblemDocument {
  status?: unknown
  code?: unknown
  detail?: unknown
  title?: unknown
  column?: unknown
}

/* Reads a problem document; anything else becomes the code `internal` or `unreachable`. */
export function toProblem(status: number, body: unknown): Problem {
  const document: ProblemDocument = typeof body === 'object' && body !== null ? body : {}
  const code = typeof document.code === 'string' ? document.code : 'internal'
  const text = [document.detail, document.title].find((part) => typeof part === 'string')
  const column = typeof document.column === 'number' ? document.column : undefined
  return new Problem(status, code, typeof text === 'string' ? text : `HTTP ${status}`, column)
}

export function unreachable(): Problem {
  return new Problem(0, 'unreachable', 'The hub does not answer.')
}
