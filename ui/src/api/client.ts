/* The typed client of the hub. Mutating requests carry the CSRF token; a 401 ends the page's session. */
import createClient, { type Middleware } from 'openapi-fetch'
import type { paths } from './schema'
import { Problem, toProblem, unreachable } from './problems'
import type { Page } from './types'

let csrf = ''
let onSignedOut: () => void = () => undefined

export function setCsrf(token: string): void {
  csrf = token
}
export function csrfHeaders(): Record<string, string> {
  return csrf === '' ? {} : { 'X-CSRF-Token': csrf }
}
export function whenSignedOut(handler: () => void): void {
  onSignedOut = handler
}

const csrfToken: Middleware = {
  onRequest({ request }) {
    if (request.method !== 'GET') {
      for (const [name, value] of Object.entries(csrfHeaders())) request.headers.set(name, value)
    }
    return request
  },
}

export const client = createClient<paths>({ baseUrl: '', credentials: 'same-origin' })
client.use(csrfToken)

interface Answer<T> {
  data?: T
  error?: unknown
  response: Response
}

/* Gives an answer's data, or throws a `Problem`. */
export async function take<T>(answer: Promise<Answer<T>>): Promise<T> {
  let settled: Answer<T>
  try {
    settled = await answer
  } catch (reason) {
    if (reason instanceof DOMException && reason.name === 'AbortError') throw reason
    throw unreachable()
  }
  if (settled.response.ok) return settled.data as T
  throw refused(settled.response.status, settled.error)
}

/* Builds the problem of a refused request and ends the session when that is the cause. */
export function refused(status: number, body: unknown): Problem {
  let parsed = body
  if (typeof body === 'string') {
    try {
      parsed = JSON.parse(body)
    } catch {
      parsed = null
    }
  }
  const problem = toProblem(status, parsed)
  if (problem.code === 'not_signed_in') onSignedOut()
  return problem
}

const MAX_PAGES = 20

/* Follows the cursors of a list, up to 20 pages of 500. */
export async function everyPage<T>(
  fetchPage: (cursor: string | undefined) => Promise<Page<T>>,
): Promise<Page<T>> {
  const first = await fetchPage(undefined)
  const items = [...first.items]
  let cursor = first.next_cursor
  for (let page = 1; page < MAX_PAGES && cursor != null; page += 1) {
    const next = await fetchPage(cursor)
    items.push(...next.items)
    cursor = next.next_cursor
  }
  return { items, next_cursor: cursor ?? null, total: first.total }
}
