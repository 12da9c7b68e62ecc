/* The part of an event's data that says something to a person. */
import type { HubEvent } from '@/api/types'

const SHOWN = [
  'link',
  'reason',
  'subject',
  'package',
  'version',
  'state',
  'exit_code',
  'group',
  'address',
]

export function eventDetail(event: Pick<HubEvent, 'data'>, exit: (code: number) => string): string {
  const data: Record<string, unknown> = event.data
  return SHOWN.flatMap((field) => {
    const value = data[field]
    if (field === 'exit_code') return typeof value === 'number' ? [exit(value)] : []
    return typeof value === 'string' || typeof value === 'number' ? [String(value)] : []
  })
    .filter(Boolean)
    .join(' · ')
}
