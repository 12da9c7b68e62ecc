/* An action on a forward, a link or a service: asked about, done, and its lists fetched anew. */
import { useQueryClient } from '@tanstack/vue-query'
import { confirmAction } from '@/lib/confirm'
import { showProblem } from '@/lib/problem-text'

export function useChange(...stale: readonly (readonly unknown[])[]) {
  const queries = useQueryClient()
  return async (
    action: () => Promise<unknown>,
    question?: { title: string; text: string },
  ): Promise<void> => {
    if (question && !(await confirmAction(question.title, question.text, question.title))) return
    try {
      await action()
    } catch (error) {
      showProblem(error)
    }
    await Promise.all(stale.map((queryKey) => queries.invalidateQueries({ queryKey })))
  }
}
