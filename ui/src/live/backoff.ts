/* Full jitter: a random wait between nothing and a bound that doubles with each failure, 30 s at most. */
export function backoffMs(failures: number, random: () => number = Math.random): number {
  const bound = Math.min(30_000, 500 * 2 ** Math.min(failures, 10))
  return Math.round(bound * (0.2 + 0.8 * random()))
}
