/* An xterm.js terminal with its addons, ready for a strict content security policy. */
import { FitAddon } from '@xterm/addon-fit'
import { SearchAddon } from '@xterm/addon-search'
import { Unicode11Addon } from '@xterm/addon-unicode11'
import { WebLinksAddon } from '@xterm/addon-web-links'
import { Terminal } from '@xterm/xterm'
import '@xterm/xterm/css/xterm.css'
import { allowStyles } from './csp-styles'
import { terminalTheme } from './theme'

export interface Screen {
  terminal: Terminal
  fit: FitAddon
  search: SearchAddon
  dispose: () => void
}

const FONT =
  "'JetBrains Mono Variable', ui-monospace, 'SF Mono', 'Cascadia Mono', 'DejaVu Sans Mono', 'Noto Sans Mono CJK SC', monospace"

export async function openScreen(element: HTMLElement): Promise<Screen> {
  await document.fonts.load("13px 'JetBrains Mono Variable'").catch(() => undefined)
  const forbidStyles = allowStyles(document)
  const terminal = new Terminal({
    allowProposedApi: true, // unicode11
    cursorBlink: true,
    fontFamily: FONT,
    fontSize: 13,
    lineHeight: 1.15,
    minimumContrastRatio: 4.5,
    scrollback: 10_000,
    theme: terminalTheme,
  })
  const fit = new FitAddon()
  const search = new SearchAddon()
  terminal.loadAddon(fit)
  terminal.loadAddon(search)
  terminal.loadAddon(new WebLinksAddon(openLink))
  terminal.loadAddon(new Unicode11Addon())
  terminal.unicode.activeVersion = '11'
  terminal.open(element)
  await useWebgl(terminal)
  fit.fit()
  const dispose = () => {
    terminal.dispose()
    forbidStyles()
  }
  return { terminal, fit, search, dispose }
}

/* What a node prints is not trusted: only web addresses, without a way back to this page. */
function openLink(_event: MouseEvent, address: string): void {
  if (/^https?:\/\//.test(address)) window.open(address, '_blank', 'noopener,noreferrer')
}

const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i

/* Whether the machine draws WebGL in hardware: the DOM renderer is faster than software. */
function hasGpu(): boolean {
  const probe = document
    .createElement('canvas')
    .getContext('webgl2', { failIfMajorPerformanceCaveat: true })
  if (probe === null) return false
  const info = probe.getExtension('WEBGL_debug_renderer_info')
  const renderer: unknown = probe.getParameter(info?.UNMASKED_RENDERER_WEBGL ?? probe.RENDERER)
  probe.getExtension('WEBGL_lose_context')?.loseContext()
  return typeof renderer === 'string' && !SOFTWARE.test(renderer)
}

async function useWebgl(terminal: Terminal): Promise<void> {
  if (!hasGpu()) return
  try {
    const { WebglAddon } = await import('@xterm/addon-webgl')
    const webgl = new WebglAddon()
    webgl.onContextLoss(() => {
      webgl.dispose()
    })
    terminal.loadAddon(webgl)
  } catch {
    /* the DOM renderer stays */
  }
}
