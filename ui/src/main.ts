import { VueQueryPlugin } from '@tanstack/vue-query'
import { createPinia } from 'pinia'
import { createApp } from 'vue'
import App from './App.vue'
import { whenSignedOut } from './api/client'
import { i18n, setLocale, startLocale } from './i18n'
import { stopLive } from './live'
import { queryClient } from './query-client'
import { router } from './router'
import { useSession } from './stores/session'
import './styles/main.css'

await setLocale(startLocale())
const app = createApp(App).use(createPinia()).use(i18n).use(VueQueryPlugin, { queryClient })

whenSignedOut(() => {
  useSession().accept(null)
  stopLive()
  queryClient.clear()
  const here = router.currentRoute.value
  if (here.name !== 'sign-in') {
    void router.replace({ name: 'sign-in', query: { return: here.fullPath } })
  }
})
app.use(router).mount('#app')
