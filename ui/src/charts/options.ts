/* How every chart looks: colours from the design tokens, one x range and cursor for all of a node. */
import type uPlot from 'uplot'
import { formatMetric } from '@/lib/format'
import type { Panel } from './panels'

const COLOURS = 8

export function chartOptions(
  panel: Panel,
  syncKey: string,
  width: number,
  ceiling: () => number | null,
  onCursor: (row: number | null) => void,
): uPlot.Options {
  const style = getComputedStyle(document.documentElement)
  const token = (name: string) => style.getPropertyValue(name).trim()
  const axis = {
    stroke: token('--text-3'),
    font: `11px ${token('--font')}`,
    grid: { stroke: token('--line'), width: 1 },
    ticks: { show: false },
  }
  const single = panel.lines.length === 1
  return {
    width: Math.max(120, width),
    height: 150,
    padding: [6, 24, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: syncKey },
      points: { size: 5 },
      drag: { x: false, y: false },
    },
    scales: {
      x: { time: true },
      y: {
        range: (_plot, _min, max) => [0, panel.max ?? ceiling() ?? Math.max(1, (max || 1) * 1.08)],
      },
    },
    axes: [
      { ...axis, size: 24, space: 70, values: '{HH}:{mm}:{ss}' },
      {
        ...axis,
        size: panel.unit.startsWith('bytes') ? 70 : 44,
        space: 32,
        values: (_plot, splits) => splits.map((value) => formatMetric(value, panel.unit)),
        ...(panel.unit.startsWith('bytes') && { incrs: binarySteps }),
      },
    ],
    series: [
      {},
      ...panel.lines.map(({ label }, line) => {
        const colour = token(`--c${(line % COLOURS) + 1}`)
        return {
          label,
          stroke: colour,
          width: 1.4,
          points: { show: false },
          spanGaps: false,
          ...((single || line === 0) && panel.id !== 'cores' && { fill: `${colour}1f` }),
        }
      }),
    ],
    hooks: {
      setCursor: [
        (plot) => {
          onCursor(plot.cursor.idx ?? null)
        },
      ],
    },
  }
}

/* Round steps for sizes: 1, 2, 5, 10 … 500 of each binary unit. */
const binarySteps = [0, 1, 2, 3, 4].flatMap((power) =>
  [1, 2, 5, 10, 20, 50, 100, 200, 500].map((step) => step * 1024 ** power),
)
