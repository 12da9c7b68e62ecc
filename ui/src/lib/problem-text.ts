/* What a failure says to a person: the hub's own detail, or the catalogue's text for its code. */
import { ElMessage } from 'element-plus'
import { Problem } from '@/api/problems'
import { i18n } from '@/i18n'

export function problemText(error: unknown): string {
  const { t, te } = i18n.global
  if (!(error instanceof Problem)) return error instanceof Error ? error.message : String(error)
  const own = `problem.${error.code}`
  return te(own) ? t(own) : error.message
}

/* Shows a failed action's reason as a toast. */
export function showProblem(error: unknown): void {
  if (error instanceof DOMException && error.name === 'AbortError') return
  ElMessage({ type: 'error', message: problemText(error), duration: 6000, showClose: true })
}
