/* Joins a screen and a shell: bytes both ways, acknowledgement, size, and what happens at the end. */
import { onBeforeUnmount, ref, shallowRef, type Ref } from 'vue'
import { problemText } from '@/lib/problem-text'
import { Acknowledger } from './acknowledge'
import { attachClipboard, type PasteRules } from './clipboard'
import { binaryBytes, controlled } from './keys'
import { openScreen, type Screen } from './screen'
import { Shell, type ShellEnd } from './shell'

export type TerminalState = 'connecting' | 'open' | 'ended'

const RESIZE_DELAY_MS = 100
const MAX_INPUT = 32 * 1024

export function useTerminal(
  element: Ref<HTMLElement | undefined>,
  node: string,
  pasting: PasteRules,
) {
  const state = ref<TerminalState>('connecting')
  const end = shallowRef<ShellEnd | null>(null)
  const ctrl = ref(false)
  const screen = shallowRef<Screen | null>(null)
  const encoder = new TextEncoder()
  let shell: Shell | null = null
  let timer: ReturnType<typeof setTimeout> | undefined
  let gone = false

  function send(bytes: Uint8Array<ArrayBuffer>): void {
    for (let at = 0; at < bytes.length; at += MAX_INPUT) {
      shell?.input(bytes.slice(at, at + MAX_INPUT))
    }
  }
  function type(text: string): void {
    send(encoder.encode(ctrl.value ? controlled(text) : text))
    ctrl.value = false
  }
  function finish(how: ShellEnd): void {
    state.value = 'ended'
    end.value = how
    screen.value?.terminal.write('\r\n')
  }

  async function connect(): Promise<void> {
    const current = screen.value
    if (!current) return
    const { terminal } = current
    state.value = 'connecting'
    end.value = null
    const opened: Shell = new Shell({
      opened: () => {
        state.value = 'open'
        terminal.focus()
      },
      bytes: (data) => {
        acknowledger.received(data.length)
        terminal.write(data, () => {
          acknowledger.wrote(data.length)
        })
      },
      ended: finish,
    })
    const acknowledger = new Acknowledger((total) => {
      opened.acknowledge(total)
    })
    shell?.close()
    shell = opened
    try {
      await opened.open(node, terminal.rows, terminal.cols)
    } catch (error) {
      finish({ kind: 'error', exitCode: null, signal: null, text: problemText(error) })
    }
  }

  async function start(): Promise<void> {
    if (!element.value) return
    const opened = await openScreen(element.value)
    if (gone) {
      opened.dispose()
      return
    }
    screen.value = opened
    attachClipboard(opened.terminal, element.value, pasting)
    opened.terminal.onData(type)
    opened.terminal.onBinary((text) => {
      send(binaryBytes(text))
    })
    opened.terminal.onResize(({ rows, cols }) => shell?.resize(rows, cols))
    await connect()
  }

  const observer = new ResizeObserver(() => {
    clearTimeout(timer)
    timer = setTimeout(() => screen.value?.fit.fit(), RESIZE_DELAY_MS)
  })
  function observe(): void {
    if (element.value) observer.observe(element.value)
  }
  onBeforeUnmount(() => {
    gone = true
    observer.disconnect()
    clearTimeout(timer)
    shell?.close()
    screen.value?.dispose()
  })
  return { state, end, ctrl, screen, start, connect, observe, type }
}
