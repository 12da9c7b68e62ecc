/* The form of a command: from a page's query, and to the spec that the hub takes. */
import type { LocationQuery } from 'vue-router'
import type { Task, TaskSpec } from '@/api/types'
import { showCommand, splitCommand } from '@/lib/command'

export interface RunForm {
  target: string
  command: string
  /* Whether `sh -c` interprets the command; otherwise it is split into words only. */
  shell: boolean
  user: string
  cwd: string
  stdin: string
  timeoutS: number
  parallel: number
}

/* The task that “run again” left for the form: too long for an address. */
let draft: RunForm | null = null

export function leaveDraft(task: Task): void {
  draft = {
    target: task.target,
    command: showCommand(task.argv),
    shell: task.argv[0] === 'sh' && task.argv[1] === '-c',
    user: task.user ?? '',
    cwd: task.cwd ?? '',
    stdin: '',
    timeoutS: task.timeout_s,
    parallel: task.parallel,
  }
}

export function takeDraft(query: LocationQuery): RunForm {
  const kept = draft
  draft = null
  return (
    kept ?? {
      target: typeof query.target === 'string' ? query.target : '',
      command: '',
      shell: true,
      user: '',
      cwd: '',
      stdin: '',
      timeoutS: 60,
      parallel: 50,
    }
  )
}

/* Null while the form is not complete. */
export function taskSpec(form: RunForm): TaskSpec | null {
  const command = form.command.trim()
  const argv = form.shell ? ['sh', '-c', form.command] : splitCommand(command)
  if (form.target.trim() === '' || command === '' || argv === null) return null
  return {
    target: form.target.trim(),
    argv,
    user: form.user.trim() || null,
    cwd: form.cwd.trim() || null,
    stdin_base64: form.stdin === '' ? null : toBase64(form.stdin),
    timeout_s: form.timeoutS,
    parallel: form.parallel,
  }
}

export function toBase64(text: string): string {
  let binary = ''
  for (const byte of new TextEncoder().encode(text)) binary += String.fromCharCode(byte)
  return btoa(binary)
}
