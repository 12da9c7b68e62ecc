/* Packages: list, remove, and upload with progress (which fetch can't report, XMLHttpRequest can). */
import { client, csrfHeaders, everyPage, refused, take } from './client'
import { unreachable } from './problems'
import type { Package } from './types'

export const listPackages = () =>
  everyPage((cursor) =>
    take(client.GET('/api/v1/packages', { params: { query: { limit: 500, cursor } } })),
  )

export const removePackage = (name: string, version: string) =>
  take(client.DELETE('/api/v1/packages/{name}/{version}', { params: { path: { name, version } } }))

export const packageContent = (name: string, version: string) =>
  `/api/v1/packages/${encodeURIComponent(name)}/${encodeURIComponent(version)}/content`

export interface Upload {
  file: File
  name?: string
  version?: string
  description?: string
}

/* Sends the file's bytes as the request's body; `onProgress` gets the bytes sent so far. */
export function uploadPackage(
  upload: Upload,
  onProgress: (sentBytes: number) => void,
  signal: AbortSignal,
): Promise<Package> {
  const query = new URLSearchParams({ filename: upload.file.name })
  for (const field of ['name', 'version', 'description'] as const) {
    const value = upload[field]?.trim()
    if (value) query.set(field, value)
  }
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('POST', `/api/v1/packages?${query.toString()}`)
    request.setRequestHeader('Content-Type', 'application/octet-stream')
    for (const [name, value] of Object.entries(csrfHeaders())) request.setRequestHeader(name, value)
    request.upload.onprogress = (event) => {
      onProgress(event.loaded)
    }
    request.onload = () => {
      if (request.status === 201) resolve(JSON.parse(request.responseText) as Package)
      else reject(refused(request.status, request.responseText))
    }
    request.onerror = () => {
      reject(unreachable())
    }
    request.onabort = () => {
      reject(new DOMException('The upload was cancelled.', 'AbortError'))
    }
    signal.addEventListener('abort', () => {
      request.abort()
    })
    request.send(upload.file)
  })
}
