/* Asks before something that can't be undone; true when the person agrees. */
import { ElMessageBox } from 'element-plus'
import { i18n } from '@/i18n'

export async function confirmAction(title: string, text: string, action: string): Promise<boolean> {
  try {
    await ElMessageBox.confirm(text, title, {
      confirmButtonText: action,
      cancelButtonText: i18n.global.t('action.cancel'),
      confirmButtonClass: 'el-button--danger',
      autofocus: false,
    })
    return true
  } catch {
    return false
  }
}
