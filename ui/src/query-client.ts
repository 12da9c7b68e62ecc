/* One cache for all pages. Events make entries stale, so nothing polls faster than every 30 s. */
import { QueryClient } from '@tanstack/vue-query'
import { Problem } from './api/problems'

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 15_000,
      refetchOnWindowFocus: true,
      retry: (failures, error) =>
        failures < 2 && error instanceof Problem && (error.status === 0 || error.status >= 500),
    },
  },
})
