/* The catalogues: one is loaded at start, the other when it is chosen. */
import { nextTick } from 'vue'
import { createI18n } from 'vue-i18n'

export type Locale = 'en' | 'zh'
export const locales: readonly Locale[] = ['en', 'zh']

export const i18n = createI18n({ legacy: false, locale: 'en', fallbackLocale: 'en', messages: {} })

const loaders = {
  en: () => import('./locales/en'),
  zh: () => import('./locales/zh'),
}

/* The stored language, or the browser's. */
export function startLocale(): Locale {
  let stored: string | null = null
  try {
    stored = localStorage.getItem('mooring.locale')
  } catch {
    /* follow the browser */
  }
  if (stored === 'en' || stored === 'zh') return stored
  return navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'
}

export async function setLocale(locale: Locale): Promise<void> {
  const { default: messages } = await loaders[locale]()
  i18n.global.setLocaleMessage(locale, messages)
  i18n.global.locale.value = locale
  document.documentElement.lang = locale === 'zh' ? 'zh-CN' : 'en'
  await nextTick()
}
